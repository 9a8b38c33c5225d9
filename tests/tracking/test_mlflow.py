"""MLflow: what a run leaves there, read back from a database of its own."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars
import pytest

from reaemb_bench.core.artifacts import Corpus, Ranks
from reaemb_bench.core.execute import execute, fetch_all
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.runs import Group
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.summary import summarise
from reaemb_bench.tracking.connection import connect
from reaemb_bench.tracking.mlflow import IDENTITY_TAG, Tracker, group_run, log_group
from tests.conftest import Said
from tests.helpers.mlflow_runs import SELDOM, children, runs_in
from tests.helpers.stored_runs import write_recipes

Command = Callable[..., Said]


def _track(
    plans: Plan | list[Plan], store: Store, uri: str, group: Group | None = None, models: bool = False
) -> list[str]:
    warnings: list[str] = []
    plans = plans if isinstance(plans, list) else [plans]
    tracker = Tracker(plans, store, uri, warnings.append, group, models)
    finished = False
    try:
        for planned in plans:
            execute(planned, store, Machine(), tracker)
        tracker.arrange()
        tracker.results({"table.md": "| a table |"})
        finished = True
    finally:
        tracker.close(finished)
    return warnings


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_settings_curves_results_and_files(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    assert _track(plan(load(toy_recipe), 42), store, uri) == []
    (run,) = runs_in(uri, "toys")
    assert (run.info.run_name, run.info.status) == ("toys", "FINISHED")
    assert (run.data.params["train.rate"], run.data.params["seed"]) == ("0.1", "42")
    (ranks,) = fetch_all(plan(load(toy_recipe), 42), store, Ranks).values()
    assert run.data.metrics["1 NDCG_at_10/all"] == summarise(ranks)["full/ndcg@10"]
    assert run.data.metrics["cost/minutes"] > 0
    assert not [name for name in run.data.metrics if "users" in name or "-q" in name]
    assert run.data.tags["mlflow.note.content"] == "| a table |"
    curve = connect(uri).get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.1), (2, 0.05)]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "toys"
    artifacts = tmp_path / "mlruns" / run.info.run_id / "artifacts"
    assert _files(artifacts) == {"recipe.toml", "table.md", "steps.csv", "rank/ranks.parquet"}
    steps = polars.read_csv(artifacts / "steps.csv")
    assert steps["step"].to_list() == ["prepare", "embed", "train", "rank"]
    assert json.loads(steps["facts"][2]) == {"parameters": 7, "optimizer": "toy"}


def test_seeds_hang_below_one_run_however_they_came(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store, recipe = Store(tmp_path / "store"), load(toy_recipe)
    one, two, three = (plan(recipe, seed) for seed in (1, 2, 3))
    for plans in ([one], [one, two], [one, two], [one, two, three]):
        assert _track(plans, store, uri) == []
    runs = runs_in(uri, "toys")
    (above,) = children(runs, None)
    assert (above.info.run_name, above.data.tags["seed"], above.data.tags["kind"]) == ("toys", "1, 2, 3", "run")
    seeds = children(runs, above)
    assert [run.info.run_name for run in seeds] == ["toys, seed 1", "toys, seed 2", "toys, seed 3"]
    assert len(runs) == 4


def test_seeds_have_a_mean_and_floors_are_logged_once_a_data_set(command: Command, tmp_path: Path, uri: str) -> None:
    write_recipes(tmp_path)
    for words in (["good.toml", "--set", "seeds=[1, 2]"], ["poor.toml"]):
        assert command("run", *words, "--mlflow", uri).code == 0
    runs = runs_in(uri, "toys")
    by_kind = sorted((run.data.tags["kind"], run.info.run_name) for run in children(runs, None))
    assert by_kind == [("floor", "popularity"), ("floor", "random"), ("run", "good"), ("run", "poor")]
    values = {run.info.run_name: run.data.metrics for run in runs}
    seeds = [values[f"good, seed {seed}"]["1 NDCG_at_10/all"] for seed in (1, 2)]
    assert values["good"]["1 NDCG_at_10/all"] == pytest.approx(statistics.fmean(seeds))
    assert values["good"]["3 sd of NDCG_at_10/all"] == pytest.approx(statistics.stdev(seeds)) != 0
    assert values["good, seed 1"]["1 NDCG_at_10/all"] > values["popularity"]["1 NDCG_at_10/all"] > 0


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


@pytest.mark.slow
def test_the_load_of_the_machine_is_followed_while_a_gpu_is_used(
    toy_recipe: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    # Of the tracker alone, for the steps would look for the GPU.
    gpu = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True))
    monkeypatch.setattr("reaemb_bench.tracking.mlflow.sys", SimpleNamespace(modules={"torch": gpu}))
    store, planned = Store(tmp_path / "store"), plan(load(toy_recipe), 42)
    tracker = Tracker([planned], store, uri, pytest.fail)
    execute(planned, store, Machine(), tracker)
    end = time.monotonic() + 60
    while not (names := [name for name in runs_in(uri, "toys")[0].data.metrics if name.startswith("system/")]):
        assert time.monotonic() < end
        time.sleep(0.1)
    tracker.arrange()
    tracker.close(finished=True)
    assert tracker.outcome == "tracked"
    assert "system/cpu_utilization_percentage" in names
    assert not [thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]


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
    (run,) = runs_in(uri, "toys")
    assert len(connect(uri).get_metric_history(run.info.run_id, "train/loss")) == 2
    steps = polars.read_csv(tmp_path / "mlruns" / run.info.run_id / "artifacts" / "steps.csv")
    assert steps["cached"].all()


def test_the_same_results_are_not_logged_twice_but_other_seeds_are(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    for seed in (42, 42, 43):
        _track(plan(load(toy_recipe), seed), store, uri)
    assert [run.data.tags["seed"] for run in children(runs_in(uri, "toys"), None)] == ["42", "43"]


def test_a_step_that_fails_is_a_failed_run(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    planned = plan(load(toy_recipe, sets=["train.stop=error"]), 42)
    with pytest.raises(RuntimeError, match="out of toys"):
        _track(planned, Store(tmp_path / "store"), uri)
    (run,) = runs_in(uri, "toys")
    assert run.info.status == "FAILED"


def test_a_finished_run_replaces_what_was_logged_by_half(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store = Store(tmp_path / "store")
    planned = plan(load(toy_recipe), 42)
    given_up: list[str] = []
    execute(planned, store, Machine(), Tracker([planned], store, uri, given_up.append))
    assert [run.info.status for run in children(runs_in(uri, "toys"), None)] == ["RUNNING"]
    _track(planned, store, uri)
    runs = runs_in(uri, "toys")
    (parent,) = children(runs, None)
    assert parent.info.status == "FINISHED"
    assert len(runs) == 1


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
    assert [run.info.status for run in runs] == ["FAILED"]


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
    assert [run.data.tags["part of"] for run in members] == ["ablation what helps"] * 2


def test_the_same_results_alone_and_in_groups_are_one_run(toy_recipe: Path, tmp_path: Path, uri: str) -> None:
    store, planned = Store(tmp_path / "store"), plan(load(toy_recipe), 42)
    _track(planned, store, uri, Group("ablation", "rates"))
    _track(planned, store, uri, Group("ablation", "more rates"))
    runs = runs_in(uri, "toys")
    (above,) = children(runs, None)
    (member,) = children(runs, above)
    assert member.data.tags["part of"] == "ablation rates, ablation more rates"
    # What was run alone, too, stands in the first row of the list.
    _track(planned, store, uri)
    runs = runs_in(uri, "toys")
    assert [run.info.run_name for run in children(runs, None)] == ["toys", "ablation rates"]
    assert len(runs) == 2


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
    assert len(client.search_runs([experiment], f"tags.`{IDENTITY_TAG}` != ''")) == 1


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
