"""Runs side by side, from what the store remembers of them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.runs import find, ranks_of
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.metrics import hit_rate, ndcg, reciprocal_rank
from tests.conftest import Said
from tests.helpers.stored_runs import STORE, refused, run_all, write_recipes

Command = Callable[..., Said]


@pytest.fixture
def store(command: Command, tmp_path: Path) -> Store:
    return run_all(command, tmp_path)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cells(file: Path, place: int, row: str) -> dict[str, Any]:
    (found,) = [
        each["cells"] for each in json.loads(file.read_text())["tables"][place]["rows"] if each["method"] == row
    ]
    return dict(found)


def test_runs_stand_in_one_table_with_floors_and_verdicts_and_nothing_runs_again(
    store: Store, command: Command
) -> None:
    before = {file: file.stat().st_mtime_ns for file in STORE.rglob("*") if file.is_file()}
    said = command("compare", "good", "poor", "leaky", "--out", "table.csv")
    assert said.code == 0, said.err
    shown = _flat(said.out)
    assert shown.startswith("What differs setting good poor leaky steps — — peek seeds [1, 2] [42] [42] ")
    assert "rank.mean 4.0 120.0 4.0" in shown
    assert "good beats popularity on NDCG@10: +" in shown
    assert "poor loses to popularity on NDCG@10: -" in shown
    assert "good beats poor on NDCG@10: +" in shown
    assert "† looks at held-out data on purpose (peek): no fair comparison" in shown
    assert "mean ± standard deviation over 1 to 2 seeds" in shown
    rows = list(csv.DictReader(io.StringIO(Path("table.csv").read_text(encoding="utf-8"))))
    assert [(row["method"], row["floor"], row["leaks"]) for row in rows] == [
        ("good", "False", "False"),
        ("poor", "False", "False"),
        ("leaky", "False", "True"),
        ("random", "True", "False"),
        ("popularity", "True", "False"),
    ]
    assert rows[0]["NDCG@10 sd"] and not rows[1]["NDCG@10 sd"]
    assert {file: file.stat().st_mtime_ns for file in STORE.rglob("*") if file.is_file()} == before


def test_numbers_are_those_of_the_ranks_in_the_store(store: Store, command: Command) -> None:
    assert command("compare", "good", "poor", "--k", "5", "--out", "table.json").code == 0
    cells = _cells(Path("table.json"), 0, "good")
    seeds = ranks_of(find(store, "good"), store)
    means = [ndcg(each.better, each.tied, 5).mean() for each in seeds]
    assert cells["NDCG@5"]["value"] == pytest.approx(np.mean(means))
    assert cells["NDCG@5"]["sd"] == pytest.approx(np.std(means, ddof=1))
    hits = [hit_rate(each.better, each.tied, 5).mean() for each in seeds]
    assert cells["HR@5"]["value"] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("metric", ["ndcg", "hr", "mrr"])
def test_verdicts_are_about_the_metric_that_was_asked_for(store: Store, command: Command, metric: str) -> None:
    heading = {"ndcg": "NDCG@20", "hr": "HR@20", "mrr": "MRR"}[metric]
    said = command("compare", "good", "poor", "--metric", metric, "--k", 20)
    assert f"good beats poor on {heading}: +" in _flat(said.out)


def test_differences_from_a_run_stand_in_a_table_of_their_own(store: Store, command: Command) -> None:
    said = command("compare", "good", "--against", "poor", "--metric", "mrr", "--out", "table.json")
    assert said.code == 0, said.err
    assert "Differences from poor" in said.out
    assert "good beats" not in said.out
    gap = _cells(Path("table.json"), 1, "good")["Δ MRR"]
    good, poor = (
        np.mean([reciprocal_rank(each.better, each.tied).mean() for each in ranks_of(find(store, name), store)])
        for name in ("good", "poor")
    )
    assert gap["value"] == pytest.approx(good - poor)
    assert gap["verdict"] == "better"
    assert gap["interval"][0] < gap["value"] < gap["interval"][1]


BINS: dict[str, dict[str, Callable[[Ranks], Any]]] = {
    "popularity": {
        "none": lambda ranks: ranks.popularity == 0,
        "1 to 4": lambda ranks: (ranks.popularity > 0) & (ranks.popularity < 5),
        "5 to 19": lambda ranks: (ranks.popularity >= 5) & (ranks.popularity < 20),
        "20 to 99": lambda ranks: (ranks.popularity >= 20) & (ranks.popularity < 100),
        "100 up": lambda ranks: ranks.popularity >= 100,
    },
    "history": {
        "5 to 8": lambda ranks: ranks.history < 9,
        "9 to 12": lambda ranks: (ranks.history > 8) & (ranks.history < 13),
        "13 to 16": lambda ranks: (ranks.history > 12) & (ranks.history < 17),
        "17 to 20": lambda ranks: (ranks.history > 16) & (ranks.history < 21),
        "21 to 24": lambda ranks: ranks.history > 20,
    },
    "cold": {"cold": lambda ranks: ranks.popularity == 0, "warm": lambda ranks: ranks.popularity > 0},
}


@pytest.mark.parametrize("by", list(BINS))
def test_a_metric_by_bins_of_users(store: Store, command: Command, by: str) -> None:
    said = command("compare", "good", "leaky", "--by", by, "--metric", "hr", "--k", 3, "--out", "table.json")
    assert said.code == 0, said.err
    cells = _cells(Path("table.json"), 1, "good")
    assert list(cells) == ["HR@3", *(f"HR@3 {name}" for name in BINS[by])]
    seeds = ranks_of(find(store, "good"), store)
    for name, inside in BINS[by].items():
        means = [hit_rate(each.better, each.tied, 3)[inside(each)].mean() for each in seeds]
        assert cells[f"HR@3 {name}"]["value"] == pytest.approx(np.mean(means))
        assert f"{name} ({inside(seeds[0]).sum()})" in _flat(said.out)
    assert "leaky †" in said.out.partition("By ")[2]


def test_runs_of_one_name_are_told_apart_by_their_ids(store: Store, command: Command) -> None:
    first = find(store, "poor").id
    Path("other").mkdir()
    Path("other/poor.toml").write_text("extends = '../poor.toml'\nrank.mean = 30\n", encoding="utf-8")
    assert command("run", "other/poor.toml").code == 0
    second = find(store, "poor").id
    assert first != second
    said = command("compare", first, second[:5])
    assert said.code == 0, said.err
    assert f"poor {first}" in said.out and f"poor {second}" in said.out


def test_a_recipe_whose_results_are_in_the_store_is_a_run(store: Store, command: Command, tmp_path: Path) -> None:
    (tmp_path / "again.toml").write_text("extends = 'poor.toml'\n", encoding="utf-8")
    said = command("compare", "good", "again.toml")
    assert said.code == 0, said.err
    assert "good beats again on NDCG@10" in _flat(said.out)
    (tmp_path / "fresh.toml").write_text("extends = 'poor.toml'\nrank = { mean = 7 }\n", encoding="utf-8")
    refused(command("compare", "good", "fresh.toml"), "holds no results of fresh.toml with seed 42; run it first")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("[prepare]\nusers = 190\n", "good and other have different users or targets"),
        ("[rank]\noffset = 1\n", "good and other have different training data"),
    ],
)
def test_runs_on_other_data_are_refused(store: Store, command: Command, tmp_path: Path, edit: str, said: str) -> None:
    (tmp_path / "other.toml").write_text(f"extends = 'good.toml'\n{edit}", encoding="utf-8")
    command("run", "other.toml")
    refused(command("compare", "good", "other"), said)


def test_runs_on_data_of_another_name_are_refused_by_that_name(
    store: Store, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"good": "toys", "poor": "beauty"}
    monkeypatch.setattr(
        "reaemb_bench.cli.results.run_from", lambda place, wanted: replace(find(place, wanted), data=data[wanted])
    )
    refused(command("compare", "good", "poor"), "good is on toys and poor on beauty: compare runs on the same data")


def test_mistakes_are_one_line(store: Store, command: Command) -> None:
    refused(command("compare", "good"), "compare takes two different runs or more")
    refused(command("compare", "good", "good"), "compare takes two different runs or more")
    refused(command("compare", "good", "pour"), "remembers no run 'pour'. Did you mean 'poor'?")
    refused(command("compare", "good", "poor", "--out", "table.txt"), "give one of .md, .tex, ")
    refused(command("compare", "good", "poor", "--metric", "map"), "'map'")
    refused(command("compare", "good", "poor", "--by", "age"), "'age'")
    refused(command("compare", "good", "poor", "--store", "nowhere"), "there is no store nowhere")
    lost = find(store, "poor").key_of(Ranks)
    assert lost is not None
    (store.folder(lost) / "manifest.json").unlink()
    refused(command("compare", "good", "poor"), "(poor) is no longer in the store; run it again")


def test_looking_at_runs_imports_no_torch(command: Command, tmp_path: Path) -> None:
    write_recipes(tmp_path)
    assert command("run", "good.toml").code == command("run", "poor.toml").code == 0
    script = (
        "import sys\nfrom reaemb_bench.cli.app import main\n"
        "for words in (['compare', 'good', 'poor', '--by', 'cold'], ['history'], ['diff', 'good', 'poor'],\n"
        "              ['store', 'ls'], ['store', 'gc']):\n"
        "    sys.argv = ['reaemb-bench', *words]\n"
        "    try:\n        main()\n    except SystemExit as left:\n        assert left.code == 0, words\n"
        "slow = {'torch', 'transformers', 'mlflow', 'sklearn', 'matplotlib', 'optuna'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
