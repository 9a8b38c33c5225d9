"""MLflow: what a run leaves there, read back from a database of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.execute import execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.runs import Group
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.mlflow import GROUP_TAG, Tracker, connect, group_run, log_group
from tests.helpers.mlflow_runs import SELDOM, children, runs_in


def _track(planned: Plan, store: Store, uri: str, group: Group | None = None, models: bool = False) -> list[str]:
    warnings: list[str] = []
    tracker = Tracker(planned, store, uri, warnings.append, group, models)
    finished = False
    try:
        execute(planned, store, Machine(), tracker)
        tracker.step_results("rank", {"full/ndcg@10": 0.5})
        tracker.results({"full/ndcg@10/tail": 0.25, "full/ndcg@10/history-q1": 0.5}, {"table.md": "| a table |"})
        finished = True
    finally:
        tracker.close(finished)
    return warnings


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_settings_curves_results_and_files(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    assert _track(plan(load(toy_recipe), 42), store, uri) == []
    runs = runs_in(uri, "toys")
    (parent,) = children(runs, None)
    nested = children(runs, parent)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["train.rate"] == "0.1"
    assert parent.data.params["steps"] == "prepare, embed, train, rank"
    assert parent.data.metrics == {"test/full/ndcg_at_10/tail": 0.25}
    assert parent.data.tags["mlflow.note.content"] == "| a table |"
    assert [run.info.run_name for run in nested] == ["prepare", "embed", "train", "rank"]
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


def test_tags_say_what_people_filter_by(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    _track(plan(load(toy_recipe), 42), Store(tmp_path / "store"), uri)
    (parent,) = children(runs_in(uri, "toys"), None)
    wanted = {
        "method": "toys",
        "data": "toys",
        "seed": "42",
        "leaks": "none",
        "kind": "run",
        "protocol": "whole catalogue",
    }
    assert {name: parent.data.tags.get(name) for name in wanted} == wanted
    assert parent.data.tags["version"]
    assert "head" not in parent.data.tags


def test_models_are_logged_on_request_alone(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    _track(plan(load(toy_recipe), 42), Store(tmp_path / "store"), uri, models=True)
    (parent,) = children(runs_in(uri, "toys"), None)
    found = _files(tmp_path / "mlruns" / parent.info.run_id / "artifacts")
    assert {name.rpartition("/")[0] for name in found} == {"", "rank", "embed/vectors", "train/ranker"}


def test_the_first_run_and_the_second_go_to_the_experiment_of_the_data(
    toy_recipe: Path, tmp_path: Path, uri: str
) -> None:
    store = Store(tmp_path / "store")
    _track(plan(load(toy_recipe), 42), store, uri)
    # Its data lies in the store now, so that the name is known from the beginning.
    _track(plan(load(toy_recipe), 43), store, uri)
    assert len(children(runs_in(uri, "toys"), None)) == 2
    assert {each.name for each in connect(uri).search_experiments()} == {"Default", "reaemb-bench/toys"}


def test_curves_of_cached_steps_are_logged_in_a_new_database(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    planned = plan(load(toy_recipe), 42)
    execute(planned, store, Machine(), lambda event: None)
    assert _track(planned, store, uri) == []
    train = next(run for run in runs_in(uri, "toys") if run.data.tags.get("step") == "train")
    assert train.data.tags["cached"] == "true"
    assert len(connect(uri).get_metric_history(train.info.run_id, "loss")) == 2


def test_the_same_results_are_not_logged_twice_but_other_seeds_are(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    for seed in (42, 42, 43):
        _track(plan(load(toy_recipe), seed), store, uri)
    assert [run.data.tags["seed"] for run in children(runs_in(uri, "toys"), None)] == ["42", "43"]


def test_a_step_that_fails_is_a_failed_run(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    planned = plan(load(toy_recipe, sets=["train.stop=error"]), 42)
    with pytest.raises(RuntimeError, match="out of toys"):
        _track(planned, Store(tmp_path / "store"), uri)
    runs = runs_in(uri, "toys")
    (parent,) = children(runs, None)
    assert parent.info.status == "FAILED"
    assert [run.info.status for run in children(runs, parent)] == ["FINISHED", "FINISHED", "FAILED"]


def test_a_finished_run_replaces_what_was_logged_by_half(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    planned = plan(load(toy_recipe), 42)
    given_up: list[str] = []
    execute(planned, store, Machine(), Tracker(planned, store, uri, given_up.append))
    assert [run.info.status for run in children(runs_in(uri, "toys"), None)] == ["RUNNING"]
    _track(planned, store, uri)
    runs = runs_in(uri, "toys")
    (parent,) = children(runs, None)
    assert parent.info.status == "FINISHED"
    assert len(runs) == 1 + 4


def test_a_run_that_fails_before_its_data_are_known_is_tracked_too(
    toy_recipe: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(load(toy_recipe), 42)
    monkeypatch.setattr(Corpus, "save", _refuse)
    with pytest.raises(OSError, match="disk full"):
        _track(planned, Store(tmp_path / "store"), uri)
    (experiment,) = [each for each in connect(uri).search_experiments() if each.name != "Default"]
    assert experiment.name == "reaemb-bench"
    runs = runs_in(uri, "")
    assert [run.info.status for run in runs] == ["FAILED", "FAILED"]


def _refuse(corpus: Corpus, folder: Path) -> None:
    raise OSError("disk full")


@pytest.mark.slow
def test_members_of_a_group_hang_below_one_run(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store, group = Store(tmp_path / "store"), Group("ablation", "what helps")
    for seed in (42, 43):
        assert _track(plan(load(toy_recipe), seed), store, uri, group) == []
    log_group(uri, group, "toys", {"table.md": "| all |"})
    runs = runs_in(uri, "toys")
    (above,) = children(runs, None)
    assert above.info.run_name == "ablation what helps"
    assert above.info.status == "FINISHED"
    assert above.data.tags["mlflow.note.content"] == "| all |"
    members = children(runs, above)
    assert [run.data.tags["seed"] for run in members] == ["42", "43"]
    assert all(len(children(runs, member)) == 4 for member in members)


@pytest.mark.slow
def test_a_run_alone_is_tracked_again_as_part_of_a_group(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store, planned = Store(tmp_path / "store"), plan(load(toy_recipe), 42)
    _track(planned, store, uri)
    for _ in range(2):
        _track(planned, store, uri, Group("trial", "rates"))
    assert sorted(run.data.tags["kind"] for run in children(runs_in(uri, "toys"), None)) == ["run", "trial"]


class Late:
    """A client of a process that looked for a group's run a moment before another process made it."""

    def __init__(self, client: Any) -> None:
        self._client, self._looked = client, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def search_runs(self, *words: Any, **options: Any) -> Any:
        """Nothing at first."""
        if not self._looked:
            self._looked = True
            return []
        return self._client.search_runs(*words, **options)


def test_two_processes_that_make_a_groups_run_at_once_end_with_one(uri: str) -> None:
    client = connect(uri)
    experiment = client.create_experiment("race")
    group = Group("ablation", "what helps")
    first = group_run(client, experiment, group)
    assert group_run(Late(client), experiment, group) == first
    assert len(client.search_runs([experiment], f"tags.`{GROUP_TAG}` != ''")) == 1


def test_members_move_where_the_group_turns_out_to_have_an_older_run(
    toy_recipe: Path, tmp_path: Path, uri: str
) -> None:
    group, client = Group("ablation", "what helps"), connect(uri)
    planned, store = plan(load(toy_recipe), 42), Store(tmp_path / "store")
    tracker = Tracker(planned, store, uri, pytest.fail, group)
    execute(planned, store, Machine(), tracker)
    experiment = client.get_experiment_by_name("reaemb-bench/toys").experiment_id
    tags = {GROUP_TAG: "ablation/what helps"}
    older = client.create_run(experiment, start_time=1, tags=tags, run_name="older")
    tracker.close(finished=True)
    runs = runs_in(uri, "toys")
    (above,) = children(runs, None)
    assert above.info.run_id == older.info.run_id
    assert [run.data.tags["seed"] for run in children(runs, above)] == ["42"]


def test_a_server_that_does_not_work_costs_one_line_and_no_result(toy_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    store = Store(tmp_path / "store")
    uri = f"nonsense://me:secret@host{tmp_path}/file"
    planned = plan(load(toy_recipe), 42)
    (warning,) = _track(planned, store, uri)
    assert warning.startswith(f"warning: MLflow at nonsense://***@host{tmp_path}/file fails")
    assert warning.endswith("later: reaemb-bench push toys")
    assert "secret" not in warning
    assert all(store.has(job.key) for job in planned.jobs)
    assert _track(plan(load(toy_recipe), 43), store, uri) == [], "what is away is not asked again for a while"


@pytest.mark.parametrize("broken", SELDOM)
def test_a_server_that_goes_away_costs_one_line_and_no_result(
    broken: str, toy_recipe: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, planned = Store(tmp_path / "store"), plan(load(toy_recipe), 42)

    def away(*words: object, **options: object) -> None:
        raise ConnectionError("API request to http://me:secret@host/api failed")

    with monkeypatch.context() as patched:
        patched.setattr(f"mlflow.tracking.MlflowClient.{broken}", away)
        (warning,) = _track(planned, store, uri)
    assert "ConnectionError" in warning
    assert "secret" not in warning
    assert all(store.has(job.key) for job in planned.jobs)
    assert _track(planned, store, uri) == []
    (parent,) = children(runs_in(uri, "toys"), None)
    assert parent.info.status == "FINISHED"
