"""Suite files and their cells: every method on every data set, under every recommender, with every seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.plan import Plan, flatten, plan
from reaemb_bench.core.recipe import Raw, from_raw, load, locate, merge, name_with_edits, parse_set, read_toml
from reaemb_bench.core.registry import nearest, settings_error
from reaemb_bench.experiments.variants import Edits, Variant, edited, file_near, judge, planned_variant

_DATA_STEP = "prepare"


class Method(Edits):
    """A method of a suite: a recipe and its edits. recipe: a file, relative to the suite, or the name of a shipped one.

    name: in the tables; by default the recipe's, with what is changed. own_head: whether the recommender stays as the
    recipe has it, instead of those in `heads`. proposed: whether to test it against the best of the others.
    """

    recipe: str
    name: str = ""
    own_head: bool = False
    proposed: bool = False


class Suite(BaseModel):
    """A validated suite; tables are raw TOML until they are merged into a recipe. title: of the tables.

    methods: one row each. set: tables merged over those of every recipe that has such a step, before the method's own.
    data: named `[prepare]` tables, which replace each recipe's. heads: named training settings for each step that has a
    setting `head`; without any, recipes keep their own. train: training settings that all `heads` share, methods with
    their own head included. seeds: one run each. embedder_seed: in all runs; without it each recipe says whether the
    embedder takes part in `seeds`. data_seed: of tie order and stored candidates, so that all methods are judged by the
    same targets.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    methods: tuple[Method, ...] = Field(min_length=1)
    set: Raw = Field(default_factory=dict)
    data: dict[str, Raw] = Field(min_length=1)
    heads: dict[str, Raw] = Field(default_factory=dict)
    train: Raw = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field(default=(42,), min_length=1)
    embedder_seed: int | None = None
    data_seed: int = 0

    @field_validator("methods", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [{"recipe": method} if isinstance(method, str) else method for method in value]


@dataclass(frozen=True)
class Cell:
    """One method on one data set under one of the suite's heads, with all seeds; named after the method.

    head: empty if the suite names none. takes_head: whether that head is trained, and not the recipe's own.
    """

    name: str
    variant: Variant
    data: str
    head: str
    takes_head: bool
    proposed: bool


@dataclass(frozen=True)
class Grid:
    """All cells of a suite, and the plan of the floors of each data set."""

    cells: tuple[Cell, ...]
    floors: dict[str, Plan]

    def tasks(self) -> list[tuple[str, Plan]]:
        """Returns each distinct plan once, with its name in progress lines: all methods with one seed before the next.

        Plans that share the work of a language model are then far apart, so that processes rarely wait for each other.
        """
        tasks = {judge(planned).key: (f"{data}, floors", planned) for data, planned in self.floors.items()}
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.head, cell.data), []).append(cell)
        for group in groups.values():
            for position, cell in product(range(len(group[0].variant.plans)), group):
                planned = cell.variant.plans[position]
                words = (cell.data, cell.head if cell.takes_head else "", cell.name, f"seed {planned.seed}")
                tasks.setdefault(judge(planned).key, (", ".join(filter(None, words)), planned))
        return list(tasks.values())


def read_suite(name_or_file: str | Path, sets: Sequence[str] = ()) -> Suite:
    """Reads a TOML file or a shipped suite (`suites/quick`), and applies `--set` edits.

    A data set may be the name of a recipe, whose `[prepare]` table it takes. Raises UserError naming the file and the
    place of the mistake.
    """
    file = locate(name_or_file)
    raw = read_toml(file)
    try:
        data = raw.get("data")
        for name, value in data.items() if isinstance(data, dict) else ():
            if isinstance(value, str):
                recipe = load(file_near(value, file.parent)).raw
                if _DATA_STEP not in recipe:
                    raise RecipeError(f"the recipe {value} has no table [{_DATA_STEP}] to take", ("data", name))
                raw = {**raw, "data": {**raw["data"], name: recipe[_DATA_STEP]}}
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
    files = [str(file_near(method.recipe, file.parent)) for method in suite.methods]
    methods = [method.model_copy(update={"recipe": at}) for method, at in zip(suite.methods, files, strict=True)]
    return suite.model_copy(update={"title": suite.title or file.stem, "methods": tuple(methods)})


def grid(suite: Suite) -> Grid:
    """Plans every cell of a suite. Raises UserError naming the method, data set and head that do not fit."""
    recipes = []
    for method in suite.methods:
        try:
            recipe = load(method.recipe)
            # The suite's changes before the method's own.
            shared = {step: table for step, table in suite.set.items() if step in recipe.steps}
            changes = flatten(method.set).items()
            sets = [f"{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in changes]
            name = method.name or name_with_edits(recipe.name, sets, method.drop)
            recipe = edited(recipe, name, [shared, method.set], method.drop)
        except RecipeError as error:
            raise UserError(f"method {method.name or method.recipe}: {error}") from None
        if _DATA_STEP not in recipe.steps:
            raise UserError(f"method {name}: no step is called {_DATA_STEP}, so it cannot run on the suite's data")
        recipes.append(recipe)
    steps, names = {step for recipe in recipes for step in recipe.steps}, [recipe.name for recipe in recipes]
    if stray := [step for step in suite.set if step not in steps]:
        raise UserError(f"set.{stray[0]}: no method has a step of this name.{nearest(stray[0], steps)}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two methods are called '{twice[0]}'; give one of them another `name`")

    header: Raw = {"seeds": list(suite.seeds), "data_seed": suite.data_seed}
    if suite.embedder_seed is not None:
        header["embedder_seed"] = suite.embedder_seed
    floors, cells = {}, []
    for data, table in suite.data.items():
        try:
            floors_recipe = from_raw({"steps": [_DATA_STEP, "floors"], **header, _DATA_STEP: table}, "floors")
            floors[data] = plan(floors_recipe, suite.seeds[0])
        except RecipeError as error:
            raise UserError(f"data {data}: {error}") from None
    methods = zip(suite.methods, recipes, strict=True)
    for head, (data, table), (method, recipe) in product(suite.heads or [""], suite.data.items(), methods):
        raw = {**recipe.raw, **header, _DATA_STEP: table}
        trained = [name for name, step in recipe.steps.items() if "head" in type(step).model_fields]
        takes_head = bool(head and trained and not method.own_head)
        settings = merge(suite.train, suite.heads[head]) if takes_head else suite.train
        if head:
            # Not merged: a head is replaced whole, since all methods are to share it.
            raw |= {step: {**recipe.raw.get(step, {}), **settings} for step in trained}
        try:
            variant = planned_variant(from_raw(raw, recipe.name), recipe.name, suite.seeds)
        except RecipeError as error:
            under = f" under {head}" if takes_head else ""
            raise UserError(f"method {recipe.name} on {data}{under}: {error}") from None
        cells.append(Cell(recipe.name, variant, data, head, takes_head, method.proposed))
    return Grid(tuple(cells), floors)
