"""Suite files: which methods are compared on which data, under which recommenders, with which seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reaemb_bench.errors import RecipeError, UserError
from reaemb_bench.recipe import Raw, load, locate, merge, parse_set, read_toml
from reaemb_bench.registry import settings_error


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
