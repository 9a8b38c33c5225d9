"""`reaemb-bench sweep` through the real command line, with toy steps."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from reaemb_bench.core import runs
from reaemb_bench.core.artifacts import Ranker, TestTargets
from reaemb_bench.core.execute import execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.sweep import objectives, validation
from tests.conftest import TOYS, Said
from tests.helpers.mlflow_runs import children, runs_in

pytestmark = pytest.mark.slow

Command = Callable[..., Said]

PARTS = Path(__file__).parents[1] / "helpers" / "sweep_steps.py"
STORE = Path(".reaemb-bench/store")
RECIPE = f"""
title = "Toys"
steps = ["prepare", "embed", "train", "rank"]
prepare = {{ use = "{TOYS}:Prepare" }}
embed = {{ use = "{TOYS}:Embed" }}
rank = {{ use = "{TOYS}:Judge" }}
"""
SPACE = """
[sweep]
trials = 6
sampler = "random"
pruner = "none"

[space]
"train.rate" = { low = 0.01, high = 0.99 }
"train.kind" = { choices = ["plain", "wide"] }
"train.size" = { low = 1, high = 9, when = { "train.kind" = "wide" } }
"""


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    """A recipe of toys with its space beside it, and the file in which the recommender says that it runs."""
    log = tmp_path / "log"
    fit = f'train = {{ use = "{PARTS}:Fit", log = "{log}" }}\n'
    (tmp_path / "toys.toml").write_text(RECIPE + fit, encoding="utf-8")
    (tmp_path / "toys.search.toml").write_text(SPACE, encoding="utf-8")
    return log


def lines(log: Path, start: str) -> list[str]:
    if not log.is_file():
        return []
    return [line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith(start)]


def study(name: str = "toys", place: Path | None = None) -> optuna.Study:
    file = place or STORE / "sweeps" / f"{name}.journal"
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(file))))


def states(of: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in of.trials]


def test_a_sweep_finds_the_best_and_its_recipe_runs(command: Command, toys: Path) -> None:
    said = command("sweep", "toys.toml")
    assert said.code == 0, said.err
    found = study()
    assert states(found) == [TrialState.COMPLETE] * 6
    assert [trial.value for trial in found.trials] == pytest.approx(
        [1 - abs(trial.params["train.rate"] - 0.5) for trial in found.trials]
    )
    assert f"best recipe, trial {found.best_trial.number}: .reaemb-bench/store/sweeps/toys/best.toml" in said.out
    assert "6 trials: 6 complete" in said.out
    assert "takes 8 complete trials, there are 6" in said.out
    assert "optuna-dashboard .reaemb-bench/store/sweeps/toys.journal" in said.out
    best = STORE / "sweeps/toys/best.toml"
    assert tomllib.loads(best.read_text(encoding="utf-8"))["train"]["rate"] == found.best_params["train.rate"]
    ran = command("run", best)
    assert ran.code == 0, ran.err
    # All but the judge is there already.
    assert "computed 1 steps, 3 cached" in ran.out


def test_each_trial_is_remembered_and_tracked_as_part_of_the_sweep(command: Command, toys: Path, uri: str) -> None:
    command("sweep", "toys.toml", "--trials", 2, "--name", "mine", "--mlflow", uri)
    remembered = runs.history(Store(STORE))
    assert {(run.name, run.part_of) for run in remembered} == {
        ("toys-trial-0", "trial mine"),
        ("toys-trial-1", "trial mine"),
    }
    (above,) = children(tracked := runs_in(uri, "toys"), None)
    assert above.info.run_name == "sweep mine"
    assert above.data.tags["mlflow.note.content"].count("complete") == 2
    assert {(run.info.run_name, run.data.tags["kind"]) for run in children(tracked, above)} == {
        ("toys-trial-0", "trial"),
        ("toys-trial-1", "trial"),
    }


def test_the_page_of_plots_loads_nothing_from_elsewhere(command: Command, toys: Path) -> None:
    said = command("sweep", "toys.toml", "--trials", 9, "--sampler", "tpe", "--pruner", "median")
    assert said.code == 0, said.err
    page = (STORE / "sweeps/toys/plots.html").read_text(encoding="utf-8")
    # The course of the search, a picture by setting, importance, validation curves.
    assert page.count("<svg") == 4
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(["']?http|<script""", page)
    assert "Importance of settings" in page and "Validation curves" in page
    assert re.search(r"train\.rate +\d+ %", said.out)


def test_the_same_command_computes_only_what_is_missing_and_tries_what_an_unbroken_one_would(
    command: Command, toys: Path
) -> None:
    command("sweep", "toys.toml", "--trials", 3)
    assert len(lines(toys, "fit")) == 3
    command("sweep", "toys.toml")
    assert len(lines(toys, "fit")) == 6
    again = command("sweep", "toys.toml")
    assert len(lines(toys, "fit")) == 6
    assert "6 trials: 6 complete" in again.out
    command("sweep", "toys.toml", "--name", "unbroken")
    assert [trial.params for trial in study("unbroken").trials] == [trial.params for trial in study().trials]
    # What two studies try is computed once.
    assert len(lines(toys, "fit")) == 6


def test_pruned_trials_leave_the_store_as_it_was(command: Command, toys: Path) -> None:
    said = command("sweep", "toys.toml", "--trials", 12, "--pruner", "median")
    assert said.code == 0, said.err
    found = study()
    pruned = [trial for trial in found.trials if trial.state == TrialState.PRUNED]
    assert pruned and len(found.trials) == 12
    assert all(len(trial.intermediate_values) < 4 for trial in pruned)
    assert f"{len(pruned)} pruned" in said.out
    assert list((STORE / "drafts").iterdir()) == []
    trained = [file for file in (STORE / "results").iterdir() if (file / "ranker").is_dir()]
    assert len(trained) == len(lines(toys, "done")) == 12 - len(pruned)
    worst = min(found.trials, key=lambda trial: 1 - abs(trial.params["train.rate"] - 0.5))
    assert worst in pruned
    # A pruned recipe runs whole where somebody asks for it.
    sets = [word for path, value in worst.params.items() for word in ("--set", f"{path}={json.dumps(value)}")]
    assert command("run", "toys.toml", *sets).code == 0


def test_no_job_of_a_trial_sees_test_targets_and_nobody_opens_them(
    command: Command, toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executed = []

    def watched(planned: Any, *rest: Any) -> None:
        executed.append(planned)
        execute(planned, *rest)

    def opened(folder: Path) -> TestTargets:
        raise AssertionError("a sweep opened the test targets")

    monkeypatch.setattr("reaemb_bench.experiments.running.execute", watched)
    monkeypatch.setattr(TestTargets, "load", opened)
    assert command("sweep", "toys.toml", "--trials", 2).code == 0
    for folder in (STORE / "results").glob("*/holdout"):
        shutil.rmtree(folder)
    assert command("sweep", "toys.toml", "--trials", 4).code == 0
    assert states(study()) == [TrialState.COMPLETE] * 4
    assert len(executed) == 4
    for planned in executed:
        assert [job.name for job in planned.jobs] == ["prepare", "embed", "train"]
        assert all(job.step.data_access != "test" for job in planned.jobs)
        assert all(wanted is not TestTargets for job in planned.jobs for wanted, _ in job.inputs.values())


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_workers_trial_is_tried_again(command: Command, toys: Path, jobs: int) -> None:
    toys.with_name("order").write_text("die once", encoding="utf-8")
    if jobs == 1:
        words = [sys.executable, "-m", "reaemb_bench", "sweep", "toys.toml"]
        assert subprocess.run(words, capture_output=True, check=False).returncode == -signal.SIGKILL
        said = command("sweep", "toys.toml")
    else:
        said = command("sweep", "toys.toml", "--jobs", jobs)
        assert "a process died (exit code -9); another takes its place" in said.out
    assert said.code == 0, said.err
    found = study()
    finished = [trial for trial in found.trials if trial.state == TrialState.COMPLETE]
    lost = [trial for trial in found.trials if trial.state == TrialState.FAIL]
    assert len(finished) == 6 and len(lost) == 1 and len(found.trials) == 7
    assert lost[0].params in [trial.params for trial in finished]
    assert len(lines(toys, "done")) == 6


def test_two_commands_share_one_study(command: Command, toys: Path) -> None:
    words = [sys.executable, "-m", "reaemb_bench", "sweep", "toys.toml", "--storage", "shared.journal"]
    other = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    said = command(*words[3:])
    assert other.wait() == 0 and said.code == 0, said.err
    found = study(place=Path("shared.journal"))
    assert states(found) == [TrialState.COMPLETE] * 6
    assert len(lines(toys, "fit")) == 6


def test_an_interrupted_trial_comes_first_next_time(command: Command, toys: Path) -> None:
    toys.with_name("order").write_text("interrupt once", encoding="utf-8")
    assert command("sweep", "toys.toml").code == 130
    assert command("sweep", "toys.toml").code == 0
    found = study()
    assert [state for state in states(found) if state == TrialState.COMPLETE] == [TrialState.COMPLETE] * 6
    assert found.trials[1].params == found.trials[0].params


def test_a_trial_that_fails_is_told_and_counts(command: Command, toys: Path) -> None:
    toys.with_name("order").write_text("fail", encoding="utf-8")
    said = command("sweep", "toys.toml", "--trials", 2)
    assert said.code == 1
    assert "failed 2 times: RuntimeError: out of toys" in said.out
    assert "no trial is complete" in said.out
    toys.with_name("order").unlink()
    assert command("sweep", "toys.toml", "--trials", 3).code == 0
    assert states(study()) == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]


def test_several_objectives_give_a_front(command: Command, toys: Path) -> None:
    words = ["--objective", "validation/ndcg@10", "--objective", "minutes"]
    said = command("sweep", "toys.toml", "--out", "mine/best.toml", *words)
    assert said.code == 0, said.err
    found = study()
    assert all(trial.values[1] > 0 for trial in found.trials)
    assert "Pareto front" in said.out
    best = max(found.best_trials, key=lambda trial: trial.values[0])
    assert f"best recipe, trial {best.number}: mine/best.toml" in said.out
    assert Path("mine/best.toml").is_file()


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_every_sampler_proposes_something(command: Command, toys: Path, sampler: str) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    # Both begin at random.
    said = command("sweep", "toys.toml", "--sampler", sampler, "--trials", 12)
    assert said.code == 0, said.err
    assert states(study()) == [TrialState.COMPLETE] * 12


def test_a_grid_tries_every_point_once_and_then_ends(command: Command, toys: Path) -> None:
    space = '[space]\n"train.rate" = { choices = [0.2, 0.4] }\n"train.kind" = { choices = ["a", "b"] }\n'
    toys.with_name("toys.search.toml").write_text(
        space + '"train.size" = { low = 1, high = 2, when = { "train.kind" = "b" } }\n', encoding="utf-8"
    )
    said = command("sweep", "toys.toml", "--sampler", "grid", "--pruner", "none")
    assert said.code == 0, said.err
    tried = [tuple(trial.params.values()) for trial in study().trials]
    assert sorted(tried) == sorted((rate, *rest) for rate in (0.2, 0.4) for rest in (("a",), ("b", 1), ("b", 2)))


def test_no_trial_begins_after_the_timeout(command: Command, toys: Path) -> None:
    said = command("sweep", "toys.toml", "--timeout", 0)
    assert said.code == 1
    assert not toys.exists()


MISTAKES = {
    "unknown sampler": (["--sampler", "tpee"], "--sampler"),
    "unknown objective": (["--objective", "validation/ndgc@10"], "Did you mean 'validation/ndcg@10'?"),
    "pruning by another objective": (["--objective", "minutes", "--pruner", "median"], "say --pruner none"),
    "a sampler that takes one objective": (
        ["--sampler", "cmaes", "--objective", "minutes", "--objective", "validation/mrr"],
        "cmaes takes one objective",
    ),
    "an endless grid": (["--sampler", "grid"], "train.rate: a grid needs choices"),
    "no such database": (["--storage", "sqlite:////nowhere/at/all.db"], "cannot be used"),
    "no such driver": (
        ["--storage", "nonsense://user:secret@host/db"],
        "nonsense://***@host/db cannot",
    ),
    "a name that is no file's": (["--name", "a/b"], "--name"),
    "no such space": (["--space", "nothing.toml"], "nothing.toml"),
    "no recommender": (["--drop", "train", "--drop", "rank"], "trains no recommender"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_one_line_and_nothing_runs(command: Command, toys: Path, mistake: str) -> None:
    words, part = MISTAKES[mistake]
    said = command("sweep", "toys.toml", *words)
    assert said.code == 2
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert part in said.err
    assert "secret" not in said.err
    assert not toys.exists()


def test_another_space_under_the_same_name_is_refused(command: Command, toys: Path) -> None:
    command("sweep", "toys.toml", "--trials", 1)
    said = command("sweep", "toys.toml", "--trials", 2, "--set", "embed.width=3")
    assert said.code == 2
    assert "choose another --name" in said.err
    assert command("sweep", "toys.toml", "--trials", 1, "--set", "embed.width=3", "--name", "wide").code == 0


def test_a_recipe_without_a_space_says_so(command: Command, toys: Path) -> None:
    toys.with_name("toys.search.toml").unlink()
    said = command("sweep", "toys.toml")
    assert said.code == 2
    assert "toys.search.toml" in said.err and "--space" in said.err


def test_objectives_rank_validation_targets_as_training_does(tmp_path: Path) -> None:
    text = 'steps = ["prepare", "train", "rank"]\nprepare.source = { use = "simulated", users = 60, items = 40 }\n'
    head = 'head = { use = "sasrec", hidden = 8, max_length = 8, blocks = 1 }'
    (tmp_path / "ids.toml").write_text(f'{text}train = {{ use = "train-ids", epochs = 2, {head} }}\n', encoding="utf-8")
    recipe = load(tmp_path / "ids.toml", drops=["rank"])
    planned, machine = plan(recipe, 1), Machine(store=tmp_path / "store", mlflow="")
    store = Store(machine.store)
    execute(planned, store, machine, lambda event: None)
    ranker = planned.job_of(Ranker)
    assert ranker is not None
    found = validation(planned, store, machine)
    noted = store.manifest(ranker.key)["facts"]["best_validation_ndcg"]
    assert found["validation/ndcg@10"] == pytest.approx(noted, abs=1e-12)
    asked = objectives(planned, store, machine, ["validation/ndcg@10", "validation/ndcg@10/tail", "minutes"])
    assert asked[:2] == [noted, found["validation/ndcg@10/tail"]]
    assert asked[2] == pytest.approx(sum(store.manifest(job.key)["seconds"] for job in planned.jobs) / 60)


def test_workers_leave_with_their_owner(command: Command, toys: Path) -> None:
    toys.with_name("order").write_text("wait", encoding="utf-8")
    words = [sys.executable, "-m", "reaemb_bench", "sweep", "toys.toml", "--jobs", "2"]
    owner = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while len(lines(toys, "fit")) < 2:
        assert owner.poll() is None
        time.sleep(0.05)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    toys.with_name("order").unlink()
    said = command("sweep", "toys.toml")
    assert said.code == 0, said.err
    finished = [trial for trial in study().trials if trial.state == TrialState.COMPLETE]
    assert len(finished) == 6
