"""Which held-out rows can reach each step of a recipe, and a test of whether they do.

The test exchanges held-out items among users, runs the steps before the judges again and compares their results byte by
byte. It finds what reaches a step through artefacts, and through files or state that the data step leaves behind. It
cannot find a component that opens the raw files itself, or one that keeps the first rows that it saw: both see the same
rows in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

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

LEVELS: tuple[DataAccess, ...] = get_args(DataAccess)
"""What a step may read, from least to most; each level includes those before it."""
HELD_OUT = (ValidationTargets, TestTargets)

Parts = Literal["nothing", "test", "validation and test"]
"""Which held-out items are exchanged: none, those that only judges may read, or all."""
Outcome = Literal["identical", "leak", "follows", "declared", "unrepeatable"]
Compute = Callable[[Plan, Store], None]
"""Runs a plan's jobs, whose results are then in the store."""

_ROW = "_row"
_SEED = 2_654_435_769
"""Decides who gets whose items, independently of the recipe's seeds."""
_SHORT = 2
"""Steps and epochs of a shortened recipe; a single one would hide what is decided between an epoch and the next."""

_Result = tuple[str, type]
"""An artefact: the step that makes it, and its type."""


@dataclass(frozen=True)
class StepAccess:
    """What one step reads and makes; levels are indices of LEVELS.

    input_level: of its own inputs. result_level: of all that may change its results: its inputs, what they were made
    from, and what it declares. via: the steps by which more than `input_level` first came into its inputs. divides: it
    makes the division into training and held-out rows, so it reads all of them.
    """

    name: str
    step: Step
    reads: tuple[type, ...]
    makes: tuple[type, ...]
    input_level: int
    result_level: int
    via: tuple[str, ...]
    divides: bool

    @property
    def is_judge(self) -> bool:
        """Whether it may read test rows because it learns nothing from them."""
        return self.step.data_access == "test" and not self.step.leaks

    @property
    def undeclared(self) -> bool:
        """Whether its inputs hold more than it declares; the planner refuses such a step."""
        return not self.step.leaks and self.input_level > LEVELS.index(self.step.data_access)

    @property
    def parts(self) -> Parts:
        """The held-out items whose exchange must not change its results."""
        return "test" if self.result_level == LEVELS.index("validation") else "validation and test"

    @property
    def results(self) -> list[_Result]:
        """What it makes, except the held-out rows themselves."""
        return [(self.name, artifact) for artifact in self.makes if artifact not in HELD_OUT]


def step_access(recipe: Recipe) -> tuple[StepAccess, ...]:
    """The access of each step, in the recipe's order. Raises RecipeError if a step's signature names no artefacts."""
    makers: dict[type, StepAccess] = {}
    steps = []
    for name, step in recipe.steps.items():
        wants, makes, _ = signature(step, name)
        reads = tuple(wants.values())
        sources = {artifact: makers[artifact] for artifact in reads if artifact in makers and artifact not in HELD_OUT}
        reads_test = TestTargets in reads or any(source.is_judge for source in sources.values())
        input_level = 2 if reads_test else int(ValidationTargets in reads)
        declared = 2 if step.leaks else LEVELS.index(step.data_access)
        inherited = [source for source in sources.values() if not source.divides]
        above = [source for source in inherited if source.result_level > input_level]
        result_level = max(input_level, declared, *(source.result_level for source in inherited))
        via = tuple(dict.fromkeys(first for source in above for first in source.via or (source.name,)))
        divides = any(artifact in HELD_OUT for artifact in makes)
        access = StepAccess(name, step, reads, makes, input_level, result_level, via, divides)
        makers.update(dict.fromkeys(makes, access))
        steps.append(access)
    return tuple(steps)


def shorten(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with each step's settings `steps` and `epochs` at 2 at most, and a line for each that was cut.

    A leak shows after two steps as it does after two thousand.
    """
    raw, lines = recipe.raw, []
    for name, step in recipe.steps.items():
        for setting in [setting for setting in ("steps", "epochs") if setting in type(step).model_fields]:
            value: object = getattr(step, setting)
            unlimited = value is None and int in get_args(type(step).model_fields[setting].annotation)
            if unlimited or (type(value) is int and value > _SHORT):
                raw = merge(raw, {name: {setting: _SHORT}})
                lines.append(f"{name}.{setting} {'unlimited' if unlimited else value} → {_SHORT}")
    return from_raw(raw, recipe.name), tuple(lines)


class Exchanged(Component):
    """A source whose rows are filtered already, with the items of held-out rows dealt anew within each part.

    Users, times, ratings, the number of rows and how often each item occurs stay as they are. Filters and split of the
    recipe run on these rows again, so that what they remember is of exchanged rows too.
    """

    source: AnySource
    """The recipe's own source."""
    filters: ManyFilters
    """The recipe's filters; applied to their own result they must remove nothing more."""
    split: AnySplit
    """The split that decides which rows are held out."""
    seed: int
    """The seed that the split is given."""
    parts: Parts
    """What is exchanged."""

    def read(self, machine: Machine) -> Interactions:
        """The rows of the source, in its order. Raises UserError if the split drops columns."""
        data = self.source.read(machine)
        for one_filter in self.filters:
            data = one_filter.apply(data)
        if self.parts == "nothing":
            return data
        numbered = replace(data, frame=data.frame.with_row_index(_ROW))
        divided = vars(self.split.apply(numbered, self.seed))
        kept = {"training", "dropped"} | ({"validation"} if self.parts == "test" else set())
        origin = np.arange(data.frame.height)
        generator = np.random.default_rng(_SEED)
        for part in (frame for name, frame in divided.items() if frame.height and name not in kept):
            if _ROW not in part.columns:
                raise UserError("the split drops columns of the rows that it divides, so the audit cannot follow them")
            rows = generator.permutation(part[_ROW].to_numpy())
            origin[rows] = np.roll(rows, 1)
        return replace(data, frame=data.frame.with_columns(data.frame["item"].gather(origin)))


def exchange(recipe: Recipe, seed: int, parts: Parts) -> Recipe:
    """The recipe on data whose held-out items are exchanged among users; every training row stays the same.

    Raises UserError if no `prepare` step divides the data, because nothing else knows which rows are held out.
    """
    steps = dict(recipe.steps)
    for job in plan(recipe, seed).jobs:
        if isinstance(step := job.step, Prepare):
            split_seed = job.seed or 0
            source = Exchanged(source=step.source, filters=step.filters, split=step.split, seed=split_seed, parts=parts)
            steps[job.name] = step.model_copy(update={"source": source})
    if steps == recipe.steps:
        raise UserError(
            "held-out items can be exchanged only where a step 'prepare' divides the data, and this recipe has none; "
            "--dry shows what its steps read"
        )
    return replace(recipe, title=f"{recipe.title}, {parts} exchanged", steps=steps)


@dataclass(frozen=True)
class Verdict:
    """What exchanging the items of `parts` did to one artefact.

    leak: it changed and may not. follows: it changed with an input of its step, which `source` made. declared: the
    step, or `source` before it, leaks on purpose. unrepeatable: it changes from run to run on the same rows.
    """

    step: str
    artifact: str
    parts: Parts
    outcome: Outcome
    source: str = ""


@dataclass(frozen=True)
class LeakReport:
    """One verdict per artefact, in the order of the steps; exchanged: part -> targets that changed, and of how many."""

    verdicts: tuple[Verdict, ...]
    exchanged: Mapping[str, tuple[int, int]]

    @property
    def passed(self) -> bool:
        """Whether nothing changed except what leaks on purpose."""
        return all(verdict.outcome in ("identical", "declared") for verdict in self.verdicts)


def find_leaks(recipe: Recipe, seed: int, store: Store, compute: Compute) -> LeakReport:
    """Run the steps before the judges on the rows as they are and on exchanged ones, and compare their results.

    Steps that may read training rows alone must give the same bits when validation and test items are exchanged; steps
    that may read validation rows, when test items are. Raises UserError if nothing can be exchanged.
    """
    steps = [access for access in step_access(recipe) if not access.is_judge]
    names = {access.name for access in steps}

    def run(parts: Parts, store: Store) -> Plan:
        planned = plan(exchange(recipe, seed, parts), seed)
        planned = replace(planned, jobs=tuple(job for job in planned.jobs if job.name in names))
        compute(planned, store)
        return planned

    def checksums(planned: Plan, store: Store) -> dict[_Result, dict[str, str]]:
        """The sha256 of each file of each artefact."""
        return {
            (job.name, artifact): {
                name: file["sha256"]
                for name, file in store.manifest(job.key)["files"].items()
                if name.startswith(f"{artifact.__name__.lower()}/")
            }
            for job in planned.jobs
            for artifact in job.makes
        }

    def targets(planned: Plan, artifact: type[ValidationTargets] | type[TestTargets]) -> dict[int, int]:
        """User -> target; empty if the recipe makes no such targets."""
        held = fetch(planned, store, artifact)
        return {} if held is None else dict(zip(held.users.tolist(), held.targets.tolist(), strict=True))

    original, other = run("nothing", store), run("validation and test", store)
    exchanged = {}
    for part, artifact in (("validation", ValidationTargets), ("test", TestTargets)):
        old, new = targets(original, artifact), targets(other, artifact)
        if old:
            exchanged[part] = (sum(new.get(user) != item for user, item in old.items()), len(old))
    if not any(differing for differing, _ in exchanged.values()):
        raise UserError("no held-out item could be exchanged for another: the data hold too few held-out rows")

    before, after = checksums(original, store), {"validation and test": checksums(other, store)}
    if any(access.parts == "test" for access in steps):
        after["test"] = checksums(run("test", store), store)
    # Steps that leak on purpose are not compared.
    compared = {result: access.parts for access in steps if access.result_level < 2 for result in access.results}
    changed = {result for result, parts in compared.items() if after[parts][result] != before[result]}
    unrepeatable: set[_Result] = set()
    if changed:
        store = Store(store.root / "again")
        again = checksums(run("nothing", store), store)
        unrepeatable = {result for result in compared if again[result] != before[result]}

    name_of = {job.key: job.name for job in original.jobs}
    verdicts = []
    for access, job in zip(steps, original.jobs, strict=True):
        inputs = [(name_of[key], artifact) for artifact, key in job.inputs.values()]
        changed_input = next((source for source, artifact in inputs if (source, artifact) in changed), "")
        for result in access.results:
            outcome: Outcome = "identical"
            source = ""
            if access.result_level == 2:
                outcome, source = "declared", next(iter(access.via), "")
            elif result in unrepeatable:
                outcome = "unrepeatable"
            elif result in changed:
                outcome, source = ("follows", changed_input) if changed_input else ("leak", "")
            verdicts.append(Verdict(access.name, result[1].__name__, access.parts, outcome, source))
    return LeakReport(tuple(verdicts), exchanged)
