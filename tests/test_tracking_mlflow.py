"""MLflow: what a run leaves there, read back from a database of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.machine import Machine
from reaemb_bench.pipeline import Plan, execute, plan
from reaemb_bench.recipe import load
from reaemb_bench.store import Store
from reaemb_bench.tracking.mlflow import EXPERIMENT, Tracker, clean, connect, flatten


def _track(planned: Plan, store: Store, uri: str) -> list[str]:
    warnings: list[str] = []
    tracker = Tracker(planned, store, uri, warnings.append)
    finished = False
    try:
        execute(planned, store, Machine(), tracker)
        tracker.step_results("rank", {"full/ndcg@10": 0.5})
        tracker.results({"full/ndcg@10/tail": 0.25}, "| a table |")
        finished = True
    finally:
        tracker.close(finished)
    return warnings


def _runs(uri: str) -> tuple[list[Any], list[Any]]:
    client = connect(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parents, [run for run in runs if run not in parents]


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with MLflow's tables, made once, for that takes seconds."""
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{file}").search_experiments()
    return file.read_bytes()


@pytest.fixture
def uri(tmp_path: Path, empty_database: bytes) -> str:
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_run_leaves_settings_curves_results_and_files(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    assert _track(plan(load(toy_recipe), 42), store, uri) == []
    (parent,), nested = _runs(uri)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["recipe"] == "toys"
    assert parent.data.tags["seed"] == "42"
    assert parent.data.tags["leaks"] == "none"
    assert parent.data.params["train.rate"] == "0.1"
    assert parent.data.params["steps"] == "prepare, embed, train, rank"
    assert parent.data.metrics["test/full/ndcg_at_10/tail"] == 0.25
    assert [run.info.run_name for run in nested] == ["prepare", "embed", "train", "rank"]
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parent.info.run_id}
    train, rank = nested[2], nested[3]
    curve = connect(uri).get_metric_history(train.info.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.1), (2, 0.05)]
    assert train.data.metrics["parameters"] == 7
    assert train.data.params["optimizer"] == "toy"
    assert rank.data.metrics["test/full/ndcg_at_10"] == 0.5
    (dataset,) = parent.inputs.dataset_inputs
    assert dataset.dataset.name == "toys"
    artifacts = tmp_path / "mlruns" / parent.info.run_id / "artifacts"
    assert _files(artifacts) == {"recipe.toml", "table.md", "rank/ranks.parquet"}


def test_curves_of_cached_steps_are_logged_in_a_new_database(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    planned = plan(load(toy_recipe), 42)
    execute(planned, store, Machine(), lambda event: None)
    assert _track(planned, store, uri) == []
    _, nested = _runs(uri)
    train = nested[2]
    assert train.data.tags["cached"] == "true"
    assert len(connect(uri).get_metric_history(train.info.run_id, "loss")) == 2


def test_the_same_results_are_not_logged_twice_but_other_seeds_are(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    for seed in (42, 42, 43):
        _track(plan(load(toy_recipe), seed), store, uri)
    parents, _ = _runs(uri)
    assert [run.data.tags["seed"] for run in parents] == ["42", "43"]


def test_a_step_that_fails_is_a_failed_run(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    planned = plan(load(toy_recipe, sets=["train.stop=error"]), 42)
    with pytest.raises(RuntimeError, match="out of toys"):
        _track(planned, Store(tmp_path / "store"), uri)
    (parent,), nested = _runs(uri)
    assert parent.info.status == "FAILED"
    assert [run.info.status for run in nested] == ["FINISHED", "FINISHED", "FAILED"]


def test_a_server_that_does_not_work_costs_one_line_and_no_result(toy_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    store = Store(tmp_path / "store")
    planned = plan(load(toy_recipe), 42)
    (warning,) = _track(planned, store, f"nonsense://{tmp_path}/file")
    assert warning.startswith(f"warning: MLflow at nonsense://{tmp_path}/file fails")
    assert all(store.has(job.key) for job in planned.jobs)


def test_tables_become_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": [{"use": "x"}, {"use": "y"}], "d": [1, 2]}}) == {
        "a.b": 1,
        "a.c.0.use": "x",
        "a.c.1.use": "y",
        "a.d": [1, 2],
    }
    assert clean("full/ndcg@10/tail") == "full/ndcg_at_10/tail"
