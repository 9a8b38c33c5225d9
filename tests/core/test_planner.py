"""The planner: chaining by type, the wall around held-out data, keys, what must run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Ranker, Ranks, TestTargets, ValidationTargets, Vectors
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.execute import Event, Finished, Planned, execute, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, derive_seed, needed_jobs, plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.store import Store
from tests.conftest import TOYS


def _plan(recipe: Path, *sets: str, drops: tuple[str, ...] = (), seed: int = 42) -> Plan:
    return plan(load(recipe, sets=sets, drops=drops), seed)


def _computed(planned: Plan, store: Store) -> list[str]:
    seen: list[Event] = []
    execute(planned, store, Machine(), seen.append)
    return [event.job.name for event in seen if isinstance(event, Finished) and not event.cached]


def _insert(recipe: Path, name: str, use: str, before: str, header: str = "") -> Path:
    steps = ["prepare", "embed", "train", "rank"]
    steps.insert(steps.index(before), name)
    file = recipe.parent / "child.toml"
    text = f"extends = 'toys.toml'\nsteps = {steps}\n{header}\n[{name}]\nuse = '{TOYS}:{use}'\n"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_input_is_the_latest_artefact_of_its_type(toy_recipe: Path) -> None:
    planned = _plan(_insert(toy_recipe, "again", "Embed", before="train"))
    keys = {job.name: job.key for job in planned.jobs}
    train = planned.jobs[3]
    assert train.inputs["vectors"] == (Vectors, keys["again"])
    assert train.inputs["validation_targets"] == (ValidationTargets, keys["prepare"])


@pytest.mark.parametrize(
    ("use", "before", "message"),
    [
        ("Peek", "train", r"x: .*asks for test targets but is not a judge"),
        ("PeekAtSignal", "train", r"x: .*asks for validation targets but declares data_access = \"training\""),
        ("Leaky", "train", r"x: .*say allow_leaks = true"),
        ("Embed", "prepare", r"x: needs Corpus, which no earlier step makes"),
    ],
)
def test_the_wall(toy_recipe: Path, use: str, before: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _plan(_insert(toy_recipe, "x", use, before))


def test_nobody_learns_from_what_a_judge_made(toy_recipe: Path) -> None:
    file = toy_recipe.parent / "child.toml"
    steps = ["prepare", "embed", "train", "rank", "x"]
    file.write_text(f"extends = 'toys.toml'\nsteps = {steps}\n[x]\nuse = '{TOYS}:LearnFromRanks'\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="reads Ranks of the judge 'rank'"):
        _plan(file)


def test_a_leak_on_purpose_is_marked(toy_recipe: Path) -> None:
    planned = _plan(_insert(toy_recipe, "x", "Leaky", before="train", header="allow_leaks = true"))
    assert planned.leaks == ("x",)
    assert TestTargets in [wanted for wanted, _ in planned.jobs[2].inputs.values()]


def test_edits_run_again_only_from_the_edit(toy_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert _computed(_plan(toy_recipe), store) == ["prepare", "embed", "train", "rank"]
    assert _computed(_plan(toy_recipe), store) == []
    assert _computed(_plan(toy_recipe, "train.rate=0.2"), store) == ["train", "rank"]
    assert _computed(_plan(toy_recipe, "embed.width=3"), store) == ["embed", "train", "rank"]
    assert _computed(_plan(_insert(toy_recipe, "again", "Embed", before="train")), store) == ["again", "train", "rank"]
    assert _computed(_plan(toy_recipe, drops=("rank",)), store) == []


def test_another_seed_keeps_what_does_not_draw_from_it(toy_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    _computed(_plan(toy_recipe, "embedder_seed=1"), store)
    assert _computed(_plan(toy_recipe, "embedder_seed=1", seed=43), store) == ["train", "rank"]
    assert _computed(_plan(toy_recipe, seed=43), store) == ["embed", "train", "rank"]


def test_a_lost_result_in_the_middle_is_not_needed_while_the_end_is_there(toy_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    planned = _plan(toy_recipe)
    _computed(planned, store)
    (store.folder(planned.jobs[1].key) / "manifest.json").unlink()
    assert needed_jobs(planned, store) == frozenset()
    changed = _plan(toy_recipe, "train.rate=0.2")
    assert _computed(changed, store) == ["embed", "train", "rank"]


def test_the_machine_is_in_no_key_and_runs_repeat(toy_recipe: Path, tmp_path: Path) -> None:
    planned = _plan(toy_recipe)
    made = []
    for name in ("one", "two"):
        store = Store(tmp_path / name)
        _computed(planned, store)
        ranker, ranks = fetch(planned, store, Ranker), fetch(planned, store, Ranks)
        assert ranker is not None
        assert ranks is not None
        made.append((ranker.tensors["rate"], ranks.better))
    assert all(np.array_equal(one, two) for one, two in zip(*made, strict=True))


def test_seeds_differ_by_step_and_by_recipe_seed() -> None:
    drawn = {derive_seed(seed, name) for seed in range(20) for name in ("train", "embed", "rank")}
    assert len(drawn) == 60
    assert all(0 <= seed < 2**31 for seed in drawn)


def test_a_step_that_fails_leaves_the_steps_before_it(toy_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(RuntimeError, match="out of toys"):
        _computed(_plan(toy_recipe, "train.stop=error"), store)
    assert _computed(_plan(toy_recipe), store) == ["train", "rank"]


def test_two_runs_at_once_compute_everything_once(toy_recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    planned = _plan(toy_recipe, f"train.log={log}", f"prepare.log={log}")
    store = Store(tmp_path / "store")
    threads = [threading.Thread(target=_computed, args=(planned, store)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(log.read_text(encoding="utf-8").split()) == ["fit", "prepare"]


def test_a_damaged_input_is_said_and_not_used(toy_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    planned = _plan(toy_recipe)
    _computed(planned, store)
    file = store.folder(planned.jobs[1].key) / "vectors" / "vectors.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match=r"vectors\.safetensors is damaged"):
        _computed(_plan(toy_recipe, "train.rate=0.2"), store)


def test_a_cached_result_of_other_code_is_used_with_a_line_that_says_so(
    toy_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = toy_recipe.parent / "child.toml"
    steps = ["prepare", "embed", "reduce", "train", "rank"]
    file.write_text(f"extends = 'toys.toml'\nsteps = {steps}\n[reduce]\nreducer = 'none'\n", encoding="utf-8")
    planned, store = _plan(file), Store(tmp_path / "store")

    def notes() -> tuple[str, ...]:
        events: list[Event] = []
        execute(planned, store, Machine(device="cpu"), events.append)
        assert isinstance(events[0], Planned)
        return events[0].notes

    assert notes() == ()
    assert notes() == ()
    other = "cached results of other code are used: {}; another --store computes them again"
    monkeypatch.setattr("reaemb_bench.core.plugins._room_digest", lambda room: "other")
    assert notes() == (other.format("reduce (encoder)"),)
    monkeypatch.setattr("reaemb_bench.core.execute.__version__", "9")
    assert notes()[0].startswith(f"{other[:39]}prepare (reaemb-bench 0.1.0), embed (reaemb-bench 0.1.0), reduce (")


def test_cached_results_of_another_precision_are_used_with_a_line_that_says_so(tmp_path: Path) -> None:
    recipe = load("quickstart", drops=("lrcl", "crrl", "reduce", "train", "rank", "floors"))
    planned, store = plan(recipe, 42), Store(tmp_path / "store")

    def notes(precision: Literal["float32", "bfloat16"]) -> tuple[str, ...]:
        events: list[Event] = []
        machine = Machine(device="cpu", precision=precision, store=tmp_path / "store")
        execute(planned, store, machine, events.append)
        assert isinstance(events[0], Planned)
        return events[0].notes

    assert notes("float32") == ()
    assert notes("float32") == ()
    assert notes("bfloat16") == (
        "cached results of another precision than bfloat16 are used: llm (float32), encode (float32); "
        "another --store computes them again",
    )
