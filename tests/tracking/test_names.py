"""What things are called in MLflow, and what is shown of an address."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaemb_bench.core.plan import flatten, plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.runs import as_run
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.addresses import page_of, redacted
from reaemb_bench.tracking.mlflow import clean, experiment_name, shown_metrics, tags_of

SECRETS = st.text(alphabet="abcXYZ019:/@%!$", min_size=8, max_size=20)


def test_tables_become_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": [{"use": "x"}, {"use": "y"}], "d": [1, 2]}}) == {
        "a.b": 1,
        "a.c.0.use": "x",
        "a.c.1.use": "y",
        "a.d": [1, 2],
    }
    assert clean("full/ndcg@10/tail") == "full/ndcg_at_10/tail"


def test_an_experiment_is_called_after_its_data() -> None:
    assert experiment_name("MovieLens-100K") == "reaemb-bench/MovieLens-100K"
    assert experiment_name("") == "reaemb-bench"


def test_the_headline_comes_first_and_counts_and_bins_are_left_out() -> None:
    summary = {"users": 6.0, "users/history-q1": 3.0, "low/history-q1": 1.0, "full/ndcg@10/history-q1": 0.2}
    summary |= {"full/mrr/tail": 0.1, "sampled/hr@10": 0.7, "full/ndcg@10/tail": 0.3, "full/ndcg@10": 0.5}
    assert sorted(shown_metrics(summary).items()) == [
        ("1 NDCG_at_10/all", 0.5),
        ("1 NDCG_at_10/tail", 0.3),
        ("test full/mrr tail", 0.1),
        ("test sampled/hr@10", 0.7),
    ]


def test_tags_name_the_parts_of_a_shipped_recipe(tmp_path_factory: pytest.TempPathFactory) -> None:
    planned, store = plan(load("quickstart"), 42), Store(tmp_path_factory.mktemp("store"))
    tags = tags_of(planned, as_run([planned], store), store)
    assert tags["method"] == "quickstart"
    assert tags["data"] == "simulated"
    assert tags["backbone"] == "tiny"
    assert tags["head"] == "sasrec"
    assert tags["protocol"] == "leave-last-two, whole catalogue, and 100 sampled candidates"


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("http://me:secret@host:5000/mlflow", "http://***@host:5000/mlflow"),
        ("https://token@host", "https://***@host"),
        ("postgresql://me:sec/r@et@host/runs", "postgresql://***@host/runs"),
        ("https://host/x?token=secret&a=b", "https://host/x?token=***&a=***"),
        ("cannot reach 'http://me:secret@host/api?k=v' now", "cannot reach 'http://***@host/api?k=***' now"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql://host/runs?user=me&password=secret", "postgresql://host/runs?user=***&password=***"),
        ("https://host/mlflow#token=secret", "https://host/mlflow#token=***"),
        ("https://host/mlflow?a=b#token=secret&x=y", "https://host/mlflow?a=***#token=***&x=***"),
        ("mssql://host/db;Uid=me;Pwd=secret;", "mssql://host/db;Uid=***"),
        (
            "could not connect with host=db password='sec ret' port=1",
            "could not connect with host=db password=*** port=1",
        ),
    ],
)
def test_addresses_are_shown_without_secrets(given_: str, shown: str) -> None:
    assert redacted(given_) == shown


@given(
    secret=SECRETS,
    form=st.sampled_from(
        ["http://me:{}@host:5000/mlflow", "https://{}@host", "postgresql://h/d?password={}", "http://h/#token={}"]
    ),
)
def test_no_secret_survives_in_any_form_of_address(secret: str, form: str) -> None:
    uri = form.format(secret if "{}" in form.partition("?")[2] + form.partition("#")[2] else quote(secret, safe="!$"))
    assert secret not in redacted(uri) and quote(secret, safe="") not in redacted(uri)
    assert secret not in redacted(f"login failed for 'me' with {secret} at {uri}", uri)


def test_the_page_of_a_server_has_no_user() -> None:
    assert page_of("http://me:secret@host:5000/mlflow?a=b") == "http://host:5000/mlflow"
