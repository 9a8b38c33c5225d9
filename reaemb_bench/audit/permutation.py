"""The leak test: exchange held-out items among users; nothing before the judge may change by a bit.

It finds what reaches a step through artefacts, and through files or state that the data step leaves behind. It cannot
find a component that opens the raw files itself, or one that keeps the first rows it ever saw: both have the same rows
before them in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from reaemb_bench.artifacts import Holdout, Signal
from reaemb_bench.audit.exchange import Parts, exchanged
from reaemb_bench.audit.reading import HELD_OUT, Reading, readings
from reaemb_bench.errors import UserError
from reaemb_bench.pipeline import Plan, fetch, plan
from reaemb_bench.recipe import Recipe
from reaemb_bench.store import Store

Outcome = Literal["identical", "leak", "follows", "declared", "unrepeatable"]
Compute = Callable[[Plan, Store], None]
"""Runs a plan's jobs, whose results are then in the store."""

_Made = tuple[str, type]
"""An artefact: the step that makes it, and its type."""


@dataclass(frozen=True)
class Verdict:
    """What exchanging the items of `parts` did to one artefact.

    leak: it changed and may not. follows: so did an input of its step, which `source` made. declared: the step, or
    `source` before it, leaks on purpose. unrepeatable: it changes from run to run, whatever the rows.
    """

    step: str
    artifact: str
    parts: Parts
    outcome: Outcome
    source: str = ""


@dataclass(frozen=True)
class Examination:
    """One verdict an artefact, in the order of the steps; moved: targets that were changed, and of how many."""

    verdicts: tuple[Verdict, ...]
    moved: Mapping[str, tuple[int, int]]

    @property
    def passed(self) -> bool:
        """Whether nothing changed but what leaks on purpose."""
        return all(verdict.outcome in ("identical", "declared") for verdict in self.verdicts)


@dataclass(frozen=True)
class _Run:
    planned: Plan
    store: Store

    def same(self, other: _Run, made: _Made) -> bool:
        """Whether an artefact has the same files, byte by byte, as in another run."""
        return self._files(made) == other._files(made)

    def _key(self, step: str) -> str:
        return next(job.key for job in self.planned.jobs if job.name == step)

    def _files(self, made: _Made) -> dict[str, str]:
        """The sha256 of each file of an artefact."""
        step, artifact = made
        files = self.store.manifest(self._key(step))["files"]
        inside = f"{artifact.__name__.lower()}/"
        return {name: known["sha256"] for name, known in files.items() if name.startswith(inside)}


def examine(recipe: Recipe, seed: int, store: Store, compute: Compute) -> Examination:
    """Run the steps before the judges on the rows as they are and on exchanged ones, and compare what they make.

    Steps that may see training rows alone must give the same bits when validation and test items are exchanged; steps
    that may see validation rows, when test items are. Raises UserError where nothing can be exchanged.
    """
    examined = tuple(reading for reading in readings(recipe) if not reading.judge)

    def run(parts: Parts, where: Store) -> _Run:
        planned = plan(exchanged(recipe, seed, parts), seed)
        names = {reading.name for reading in examined}
        planned = replace(planned, jobs=tuple(job for job in planned.jobs if job.name in names))
        compute(planned, where)
        return _Run(planned, where)

    as_it_is, all_exchanged = run("nothing", store), run("validation and test", store)
    moved = _moved(as_it_is, all_exchanged)
    tests = run("test", store) if any(_parts(reading) == "test" for reading in examined) else all_exchanged
    others = {reading.name: tests if _parts(reading) == "test" else all_exchanged for reading in examined}
    changed = _changed(examined, as_it_is, others)
    unrepeatable: set[_Made] = set()
    if changed:
        again = run("nothing", Store(store.root / "again"))
        unrepeatable = _changed(examined, as_it_is, dict.fromkeys(others, again))
    return Examination(tuple(_verdicts(examined, as_it_is.planned, changed, unrepeatable)), moved)


def _parts(reading: Reading) -> Parts:
    return "test" if reading.allowed == 1 else "validation and test"


def _made(reading: Reading) -> list[_Made]:
    """What a step makes, but for the held-out rows themselves."""
    return [(reading.name, made) for made in reading.makes if made not in HELD_OUT]


def _changed(examined: tuple[Reading, ...], before: _Run, after: Mapping[str, _Run]) -> set[_Made]:
    """What differs from the run before, of the steps that are to give the same."""
    watched = [made for reading in examined if reading.allowed < 2 for made in _made(reading)]
    return {made for made in watched if not before.same(after[made[0]], made)}


def _verdicts(
    examined: tuple[Reading, ...], planned: Plan, changed: set[_Made], unrepeatable: set[_Made]
) -> list[Verdict]:
    name_of = {job.key: job.name for job in planned.jobs}
    inputs = {job.name: [(name_of[key], wanted) for wanted, key in job.inputs.values()] for job in planned.jobs}
    found = []
    for reading in examined:
        changed_input = next((made[0] for made in inputs[reading.name] if made in changed), "")
        for made in _made(reading):
            outcome: Outcome = "identical"
            source = ""
            if reading.allowed == 2:
                outcome, source = "declared", next(iter(reading.through), "")
            elif made in unrepeatable:
                outcome = "unrepeatable"
            elif made in changed:
                outcome, source = ("follows", changed_input) if changed_input else ("leak", "")
            found.append(Verdict(reading.name, made[1].__name__, _parts(reading), outcome, source))
    return found


def _moved(before: _Run, after: _Run) -> dict[str, tuple[int, int]]:
    """Targets that differ between two runs, by part. Raises UserError where none does."""
    moved = {}
    for name in ("validation", "test"):
        old, new = _targets(before, name), _targets(after, name)
        if old:
            moved[name] = (sum(new.get(user) != item for user, item in old.items()), len(old))
    if not any(count for count, _ in moved.values()):
        raise UserError("no held-out item could be exchanged for another: the data hold too few held-out rows")
    return moved


def _targets(run: _Run, part: str) -> dict[int, int]:
    """User -> target; nothing where the recipe makes no such targets."""
    artifact: type[Signal] | type[Holdout] = Signal if part == "validation" else Holdout
    held = fetch(run.planned, run.store, artifact)
    return {} if held is None else dict(zip(held.users.tolist(), held.targets.tolist(), strict=True))
