"""Suite files: which methods are compared on which data, under which recommenders, with which seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.plan import Job, Plan, plan
from reaemb_bench.core.recipe import Raw, Recipe, drop, from_raw, load, locate, merge, parse_set, read_toml
from reaemb_bench.core.registry import nearest, settings_error


class Method(BaseModel):
    """A method of a suite: a recipe, and what the suite changes in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: str
    """A recipe file, relative to the suite, or the name of a shipped one."""
    name: str = ""
    """Its name in the tables; empty takes the recipe's."""
    set: Raw = Field(default_factory=dict)
    """Tables that are laid over the recipe's, as a recipe that extends it would do."""
    drop: tuple[str, ...] = ()
    """Steps, or parts of steps, that are taken out."""
    own_head: bool = False
    """Whether the recommender stays as the recipe has it, whatever `heads` say."""
    proposed: bool = False
    """Whether this is a proposed method, to be tested against the best of the others."""

    @field_validator("drop", mode="before")
    @classmethod
    def _strict(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("give a list of names in brackets")
        return value


class Suite(BaseModel):
    """A validated suite; tables are raw TOML until they meet a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    title: str = ""
    """Stands above the tables."""
    methods: tuple[Method, ...] = Field(min_length=1)
    """One row each."""
    set: Raw = Field(default_factory=dict)
    """Tables that are laid over those of every recipe that has such a step, before the method's own."""
    data: dict[str, Raw] = Field(min_length=1)
    """Named `[prepare]` tables, which take the place of each recipe's."""
    heads: dict[str, Raw] = Field(default_factory=dict)
    """Named training settings, laid over each step that has a setting `head`; none leaves the recipes' own."""
    train: Raw = Field(default_factory=dict)
    """Training settings that all `heads` share, methods with a head of their own included."""
    seeds: tuple[int, ...] = Field(default=(42,), min_length=1)
    """One run each."""
    embedder_seed: int | None = None
    """The embedder's seed in all runs; without it each recipe says whether the embedder takes part in `seeds`."""
    data_seed: int = 0
    """For tie order and stored candidates, so that all methods are judged by the same targets."""

    @field_validator("methods", mode="before")
    @classmethod
    def _recipes_alone(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{"recipe": each} if isinstance(each, str) else each for each in value]
        return value


def read_suite(place: str | Path, sets: Sequence[str] = ()) -> Suite:
    """Read a suite file and apply `--set` edits.

    place: a TOML file, or the name of a shipped suite (`suites/quick`). A data set may be the name of a recipe in
    quotes, whose `[prepare]` table it takes. Raises UserError naming the file and the place of the mistake.
    """
    file = locate(place)
    raw = read_toml(file)
    try:
        raw = _with_data_of_recipes(raw, file.parent)
        for text in sets:
            raw = merge(raw, parse_set(text, list(Suite.model_fields), "part of the suite"))
        suite = Suite.model_validate(raw)
    except ValidationError as error:
        known = Method.model_fields if error.errors()[0]["loc"][:1] == ("methods",) else Suite.model_fields
        raise UserError(f"{file}, {settings_error(error, known)}") from None
    except RecipeError as error:
        raise UserError(f"{file}, {error}") from None
    if len(set(suite.seeds)) < len(suite.seeds):
        raise UserError(f"{file}, seeds: a seed stands twice; name each once")
    return suite.model_copy(
        update={
            "title": suite.title or file.stem,
            "methods": tuple(_at_home(method, file.parent) for method in suite.methods),
        }
    )


def _at_home(method: Method, folder: Path) -> Method:
    return method.model_copy(update={"recipe": str(_beside(method.recipe, folder))})


def _with_data_of_recipes(raw: Raw, folder: Path) -> Raw:
    data = raw.get("data")
    if not isinstance(data, dict):
        return raw
    made = {}
    for name, value in data.items():
        made[name] = value
        if isinstance(value, str):
            recipe = load(_beside(value, folder)).raw
            if "prepare" not in recipe:
                raise RecipeError(f"the recipe {value} has no table [prepare] to take", ("data", name))
            made[name] = recipe["prepare"]
    return {**raw, "data": made}


def _beside(place: str, folder: Path) -> Path:
    beside = folder / place
    return beside if beside.is_file() else locate(place)


# The cells of a suite: one recipe for each data set, recommender and method, and one plan for each seed of it.


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
