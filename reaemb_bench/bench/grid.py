"""The cells of a suite: one recipe for each data set, recommender and method, and one plan for each seed of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reaemb_bench.artifacts import Floors, Ranks
from reaemb_bench.bench.suite import Method, Suite
from reaemb_bench.errors import RecipeError, UserError
from reaemb_bench.pipeline import Job, Plan, plan
from reaemb_bench.recipe import Raw, Recipe, drop, from_raw, load, merge
from reaemb_bench.registry import nearest

_DATA_STEP = "prepare"


@dataclass(frozen=True)
class Entry:
    """One method on one data set under one of the suite's heads, "" where the suite names none; a plan a seed.

    takes_head: whether the suite's head is the one that is trained.
    """

    data: str
    head: str
    name: str
    proposed: bool
    takes_head: bool
    plans: tuple[Plan, ...]


@dataclass(frozen=True)
class Task:
    """A plan to execute, and what people call it."""

    label: str
    planned: Plan


@dataclass(frozen=True)
class Grid:
    """All entries of a suite, and the plan of the floors of each data set."""

    entries: tuple[Entry, ...]
    floors: dict[str, Plan]

    def tasks(self) -> list[Task]:
        """Each distinct plan once: those that share a language model's work stand far from each other, so that several
        processes rarely wait for the same result.
        """
        made: dict[str, Task] = {}
        for data, planned in self.floors.items():
            made[judge(planned).key] = Task(f"{data}, floors", planned)
        for entry, planned in self._by_seed():
            words = (entry.data, entry.head if entry.takes_head else "", entry.name, f"seed {planned.seed}")
            made.setdefault(judge(planned).key, Task(", ".join(filter(None, words)), planned))
        return list(made.values())

    def _by_seed(self) -> Iterator[tuple[Entry, Plan]]:
        """Entries come by head and data; within these, all methods of a seed stand before the next seed."""
        groups: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault((entry.head, entry.data), []).append(entry)
        for group in groups.values():
            for place in range(len(group[0].plans)):
                yield from ((entry, entry.plans[place]) for entry in group)


def judge(planned: Plan) -> Job:
    """The step by whose result a plan is a finished cell: the last that makes Ranks, or Floors where none does."""
    job = planned.job_of(Ranks) or planned.job_of(Floors)
    if job is None:
        raise RecipeError('ranks nothing: add a step "rank"')
    return job


def grid(suite: Suite) -> Grid:
    """Every cell of a suite, planned. Raises UserError naming the method, data set and head that do not fit."""
    loaded = [(method, _loaded(method, suite.set)) for method in suite.methods]
    steps = {step for _, recipe in loaded for step in recipe.steps}
    if stray := [step for step in suite.set if step not in steps]:
        raise UserError(f"set.{stray[0]}: no method has a step of this name.{nearest(stray[0], steps)}")
    names = [method.name or recipe.name for method, recipe in loaded]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two methods are called '{twice.pop()}'; give one of them another `name`")
    floors = {data: _floors(suite, data) for data in suite.data}
    entries = tuple(
        _entry(suite, method, name, recipe, data, head)
        for head in (suite.heads or [""])
        for data in suite.data
        for name, (method, recipe) in zip(names, loaded, strict=True)
    )
    return Grid(entries, floors)


def _loaded(method: Method, shared: Raw) -> Recipe:
    """The method's recipe with the suite's changes of it, those that all methods share first."""
    try:
        recipe = load(method.recipe)
        raw = merge(recipe.raw, {step: table for step, table in shared.items() if step in recipe.steps})
        raw = merge(raw, method.set)
        for path in method.drop:
            raw = drop(raw, path)
        changed = from_raw(raw, method.name or recipe.name)
    except RecipeError as error:
        raise UserError(f"method {method.name or method.recipe}: {error}") from None
    if _DATA_STEP not in changed.steps:
        raise UserError(f"method {changed.name}: no step is called {_DATA_STEP}, so it cannot run on the suite's data")
    return changed


def _entry(suite: Suite, method: Method, name: str, recipe: Recipe, data: str, head: str) -> Entry:
    raw = {**recipe.raw, **_header(suite), _DATA_STEP: suite.data[data]}
    trained = [step for step, made in recipe.steps.items() if "head" in type(made).model_fields]
    takes_head = bool(head and trained and not method.own_head)
    if head:
        settings = merge(suite.train, suite.heads[head]) if takes_head else suite.train
        raw |= {step: _trained(recipe.raw.get(step, {}), settings) for step in trained}
    try:
        changed = from_raw(raw, name)
        plans = tuple(plan(changed, seed) for seed in suite.seeds)
        judge(plans[0])
    except RecipeError as error:
        under = f" under {head}" if takes_head else ""
        raise UserError(f"method {name} on {data}{under}: {error}") from None
    return Entry(data, head, name, method.proposed, takes_head, plans)


def _trained(step: Raw, settings: Raw) -> Raw:
    """The table of a training step with the suite's settings; a head is replaced whole, as all methods share it."""
    kept = {key: value for key, value in step.items() if key not in settings}
    return {**kept, **settings}


def _floors(suite: Suite, data: str) -> Plan:
    raw = {"steps": [_DATA_STEP, "floors"], **_header(suite), _DATA_STEP: suite.data[data]}
    try:
        return plan(from_raw(raw, "floors"), suite.seeds[0])
    except RecipeError as error:
        raise UserError(f"data {data}: {error}") from None


def _header(suite: Suite) -> Raw:
    header: Raw = {"seeds": list(suite.seeds), "data_seed": suite.data_seed}
    return header if suite.embedder_seed is None else {**header, "embedder_seed": suite.embedder_seed}
