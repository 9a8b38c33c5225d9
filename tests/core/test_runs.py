"""What the store remembers of runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Ranker, Ranks, TestTargets, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import execute
from reaemb_bench.core.files import checksummed_json
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load, name_with_edits
from reaemb_bench.core.runs import Group, artifact_of, find, floors_of, history, ranks_of, remember
from reaemb_bench.core.store import Store
from tests.conftest import Said

Command = Callable[..., Said]


@pytest.fixture
def store(command: Command, toy_recipe: Path) -> Store:
    """The store after a run with two seeds and one with another rate."""
    assert command("run", toy_recipe, "--set", "seeds=[1, 2]", "--set", "embedder_seed=0").code == 0
    assert command("run", toy_recipe, "--set", "train.rate=0.2").code == 0
    return Store(Path(".reaemb-bench/store"))


def test_each_recipe_that_ran_is_remembered_once(store: Store, command: Command, toy_recipe: Path) -> None:
    before = history(store)
    assert sorted(run.seeds for run in before) == [(1, 2), (42,)]
    assert {(run.title, run.part_of, run.data) for run in before} == {("Toys", "run", "toys")}
    command("run", toy_recipe, "--set", "train.rate=0.2")
    assert {run.id for run in history(store)} == {run.id for run in before}


def test_edits_of_the_command_line_leave_their_trace_in_the_name(store: Store, command: Command) -> None:
    assert {run.name for run in history(store)} == {"toys (train.rate=0.2)", "toys (embedder_seed=0)"}


def test_the_same_results_alone_and_in_an_ablation_are_one_run_that_keeps_its_title(
    store: Store, command: Command, toy_recipe: Path
) -> None:
    assert command("ablate", toy_recipe, "--swap", "train.rate=0.2", "--swap", "train.rate=0.7").code == 0
    assert command("run", toy_recipe, "--set", "train.rate=0.7").code == 0
    described = {run.name: (run.part_of, run.title) for run in history(store) if run.seeds == (42,)}
    assert described == {
        "toys": ("ablation toys", "Toys"),
        "toys (train.rate=0.2)": ("run, ablation toys", "Toys"),
        "toys (train.rate=0.7)": ("ablation toys, run", "Toys"),
    }


def test_records_of_when_a_run_had_one_group_are_read(store: Store) -> None:
    run = find(store, "toys (train.rate=0.2)")
    raw = asdict(run)
    del raw["groups"]
    file = store.root / "runs" / f"{run.id}.json"
    file.write_text(checksummed_json({**raw, "kind": "bench", "group": "shop"}, run.id), encoding="utf-8")
    assert find(store, run.id) == replace(run, groups=(Group("bench", "shop"),))


@pytest.mark.parametrize(
    ("sets", "drops", "name"),
    [
        ([], [], "quickstart"),
        (["train.objective = bce"], ["crrl"], "quickstart (train.objective=bce) without crrl"),
        (["seeds=[1, 2]", "title=x"], [], "quickstart"),
        ([], ["crrl", "llm.reasoner"], "quickstart without crrl, llm.reasoner"),
        ([f"a.b={'x' * 90}", "c.d=1"], [], "quickstart (2 settings changed)"),
    ],
)
def test_a_name_says_what_was_changed(sets: list[str], drops: list[str], name: str) -> None:
    assert name_with_edits("quickstart", sets, drops) == name


def test_results_are_found_without_planning_again(store: Store) -> None:
    two = next(run for run in history(store) if run.seeds == (1, 2))
    ranks = ranks_of(two, store)
    assert len(ranks) == 2
    assert all(isinstance(each, Ranks) and len(each.users) == 6 for each in ranks)
    first, second = (artifact_of(two, store, Ranker, seed) for seed in (0, 1))
    assert not np.array_equal(first.tensors["rate"], second.tensors["rate"])
    assert np.array_equal(artifact_of(two, store, Vectors, 0).values, artifact_of(two, store, Vectors, 1).values)
    assert floors_of(two, store) is None


def test_a_run_is_found_by_id_start_or_name(store: Store) -> None:
    newest = history(store)[0]
    assert find(store, newest.id) == find(store, newest.id[:6]) == newest
    # Without a run of the recipe as it is, its name stands for the newest with edits.
    assert find(store, "toys") == newest
    assert find(store, "toys (train.rate=0.2)").name == "toys (train.rate=0.2)"
    with pytest.raises(UserError, match=r"no run 'toy'.*toys"):
        find(store, "toy")


def test_lost_results_are_named(store: Store) -> None:
    run = find(store, "toys")
    key = run.key_of(Ranks)
    assert key is not None
    (store.folder(key) / "manifest.json").unlink()
    with pytest.raises(UserError, match=f"Ranks of run {run.id} .* no longer in the store; run it again"):
        ranks_of(run, store)
    assert artifact_of(run, store, TestTargets) is not None


def test_a_broken_record_is_named(store: Store) -> None:
    file = next((store.root / "runs").glob("*.json"))
    file.write_text(json.dumps({"id": "x"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"\.json is not a record of a run .*; delete it"):
        history(store)


def test_an_unfinished_run_is_not_remembered(command: Command, toy_recipe: Path) -> None:
    with pytest.raises(RuntimeError):
        command("run", toy_recipe, "--set", "train.stop=error")
    assert history(Store(Path(".reaemb-bench/store"))) == []


def test_a_run_from_a_store_without_write_permission_goes_unrecorded(
    toy_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, planned = Store(tmp_path / "store"), plan(load(toy_recipe), 1)
    execute(planned, store, Machine(device="cpu"), lambda event: None)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != store.root)
    execute(planned, store, Machine(device="cpu"), lambda event: None)
    assert remember([planned], store).name == "toys"
    assert history(store) == []
