"""What each step of a recipe reads and makes, and which held-out rows can reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from reaemb_bench.core.artifacts import TestTargets, ValidationTargets
from reaemb_bench.core.component import Component, DataAccess, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, plan, signature
from reaemb_bench.core.recipe import Recipe, from_raw, merge
from reaemb_bench.core.store import Store
from reaemb_bench.data.interactions import Interactions
from reaemb_bench.data.kinds import AnySource, AnySplit, ManyFilters
from reaemb_bench.data.prepare import Prepare

if TYPE_CHECKING:
    import polars


DATA_ACCESS: tuple[DataAccess, ...] = ("training", "validation", "test")
"""What a step may see, from least to most; each includes those before it."""

HELD_OUT = (ValidationTargets, TestTargets)


@dataclass(frozen=True)
class StepAccess:
    """One step as its signature and its declaration have it; sights are places in SIGHTS.

    direct: what its own inputs hold. allowed: the most that it declares or that its inputs were made from, so what may
    change its results. through: the steps by which more than `direct` first came into its inputs. divides: it makes
    the division into training and held-out rows, so it reads all of them.
    """

    name: str
    step: Step
    reads: tuple[type, ...]
    makes: tuple[type, ...]
    direct: int
    allowed: int
    through: tuple[str, ...]
    divides: bool

    @property
    def judge(self) -> bool:
        """Whether it may see test rows because it learns nothing from them."""
        return self.step.data_access == "test" and not self.step.leaks

    @property
    def undeclared(self) -> bool:
        """Whether its inputs hold more than it declares; the planner refuses such a step."""
        return not self.step.leaks and self.direct > DATA_ACCESS.index(self.step.data_access)


def step_access(recipe: Recipe) -> tuple[StepAccess, ...]:
    """One reading a step, in the recipe's order. Raises RecipeError where a step's signature names no artefacts."""
    maker: dict[type, StepAccess] = {}
    found = []
    for name, step in recipe.steps.items():
        reading = _reading(name, step, maker)
        maker.update(dict.fromkeys(reading.makes, reading))
        found.append(reading)
    return tuple(found)


def _reading(name: str, step: Step, maker: dict[type, StepAccess]) -> StepAccess:
    wants, makes, _ = signature(step, name)
    reads = tuple(wants.values())
    before = {each: maker[each] for each in reads if each in maker and each not in HELD_OUT}
    of_judges = any(each.judge for each in before.values())
    direct = 2 if TestTargets in reads or of_judges else 1 if ValidationTargets in reads else 0
    inherited = [each for each in before.values() if not each.divides]
    declared = 2 if step.leaks else DATA_ACCESS.index(step.data_access)
    return StepAccess(
        name=name,
        step=step,
        reads=reads,
        makes=makes,
        direct=direct,
        allowed=max(direct, declared, *(each.allowed for each in inherited)),
        through=tuple(
            dict.fromkeys(
                first for each in inherited if each.allowed > direct for first in each.through or (each.name,)
            )
        ),
        divides=any(each in HELD_OUT for each in makes),
    )


# Recipes cut short: a leak shows after two steps as it does after two thousand.


_CUT = ("steps", "epochs")
_LEFT = 2
"""One would hide whatever is decided between an epoch and the next."""


def shorten(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with each step's settings `steps` and `epochs` at 2 at most, and a line for each that was cut."""
    raw, lines = recipe.raw, []
    for name, step in recipe.steps.items():
        for setting in _CUT:
            if _is_longer(step, setting):
                raw = merge(raw, {name: {setting: _LEFT}})
                before = getattr(step, setting)
                lines.append(f"{name}.{setting} {'unlimited' if before is None else before} → {_LEFT}")
    return from_raw(raw, recipe.name), tuple(lines)


def _is_longer(step: Step, setting: str) -> bool:
    field = type(step).model_fields.get(setting)
    if field is None:
        return False
    value: Any = getattr(step, setting)
    if value is None:
        return int in get_args(field.annotation)
    return type(value) is int and value > _LEFT


# Recipes whose held-out items are exchanged among users, while every training row stays where it is.


Parts = Literal["nothing", "test", "validation and test"]
"""Which held-out items are exchanged: none, those that only judges may see, or all."""

_ROW = "_row"
_SEED = 2_654_435_769
"""Decides who gets whose items, whatever the recipe's seeds are."""


class Exchanged(Component):
    """A source whose rows are filtered already, with the items of held-out rows dealt anew within each part.

    Users, times, ratings, the number of rows and how often each item occurs stay as they are. Filters and split of the
    recipe run on these rows again, so that whatever they remember is of exchanged rows too.
    """

    source: AnySource
    """The recipe's own source."""
    filters: ManyFilters
    """The recipe's filters; they must find nothing more to remove where they have been."""
    split: AnySplit
    """What tells which rows are held out."""
    seed: int
    """The seed that the split is given."""
    parts: Parts
    """What is exchanged."""

    def read(self, machine: Machine) -> Interactions:
        """The rows of the source, in its order. Raises UserError where the split loses sight of its rows."""
        data = self.source.read(machine)
        for each in self.filters:
            data = each.apply(data)
        if self.parts == "nothing":
            return data
        rows = data.frame.with_row_index(_ROW)
        kept = {"training"} if self.parts == "validation and test" else {"training", "validation"}
        divided = vars(self.split.apply(replace(data, frame=rows), self.seed))
        return replace(
            data, frame=_dealt_anew(data.frame, [part for name, part in divided.items() if name not in kept])
        )


def exchanged(recipe: Recipe, seed: int, parts: Parts) -> Recipe:
    """The recipe on data whose held-out items are exchanged.

    Raises UserError where no `prepare` step divides the data, for nothing else knows which rows are held out.
    """
    steps = dict(recipe.steps)
    for job in plan(recipe, seed).jobs:
        step = job.step
        if isinstance(step, Prepare):
            source = Exchanged(
                source=step.source, filters=step.filters, split=step.split, seed=job.seed or 0, parts=parts
            )
            steps[job.name] = step.model_copy(update={"source": source})
    if steps == recipe.steps:
        raise UserError(
            "held-out items can be exchanged only where a step 'prepare' divides the data, and this recipe has none; "
            "--dry shows what its steps read"
        )
    return replace(recipe, title=f"{recipe.title}, {parts} exchanged", steps=steps)


def _dealt_anew(frame: polars.DataFrame, parts: list[polars.DataFrame]) -> polars.DataFrame:
    """The frame with the items of each part's rows given to other rows of that part."""
    origin = np.arange(frame.height)
    generator = np.random.default_rng(_SEED)
    for part in parts:
        if _ROW not in part.columns:
            raise UserError("the split drops columns of the rows that it divides, so the audit cannot follow them")
        rows = generator.permutation(part[_ROW].to_numpy())
        origin[rows] = np.roll(rows, 1)
    return frame.with_columns(frame["item"].gather(origin))


# The leak test: exchange held-out items among users; nothing before the judge may change by a bit.
#
# It finds what reaches a step through artefacts, and through files or state that the data step leaves behind. It cannot
# find a component that opens the raw files itself, or one that keeps the first rows it saw: both have those rows
# before them in every run.


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
class LeakReport:
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


def find_leaks(recipe: Recipe, seed: int, store: Store, compute: Compute) -> LeakReport:
    """Run the steps before the judges on the rows as they are and on exchanged ones, and compare what they make.

    Steps that may see training rows alone must give the same bits when validation and test items are exchanged; steps
    that may see validation rows, when test items are. Raises UserError where nothing can be exchanged.
    """
    examined = tuple(reading for reading in step_access(recipe) if not reading.judge)

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
    return LeakReport(tuple(_verdicts(examined, as_it_is.planned, changed, unrepeatable)), moved)


def _parts(reading: StepAccess) -> Parts:
    return "test" if reading.allowed == 1 else "validation and test"


def _made(reading: StepAccess) -> list[_Made]:
    """What a step makes, but for the held-out rows themselves."""
    return [(reading.name, made) for made in reading.makes if made not in HELD_OUT]


def _changed(examined: tuple[StepAccess, ...], before: _Run, after: Mapping[str, _Run]) -> set[_Made]:
    """What differs from the run before, of the steps that are to give the same."""
    watched = [made for reading in examined if reading.allowed < 2 for made in _made(reading)]
    return {made for made in watched if not before.same(after[made[0]], made)}


def _verdicts(
    examined: tuple[StepAccess, ...], planned: Plan, changed: set[_Made], unrepeatable: set[_Made]
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
    artifact: type[ValidationTargets] | type[TestTargets] = ValidationTargets if part == "validation" else TestTargets
    held = fetch(run.planned, run.store, artifact)
    return {} if held is None else dict(zip(held.users.tolist(), held.targets.tolist(), strict=True))
