"""Recipes: an ordered list of step names plus one table a step, read from TOML.

`extends` names a parent recipe; a child's tables are laid over the parent's. `--set a.b=v` is such a child too, and
`--drop` takes a step out of the list or a part out of a table, so every variant is the same kind of edit.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reaemb_bench.core.component import DataAccess, Randomness, Step
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.files import is_file, real_path
from reaemb_bench.core.registry import build, nearest, settings_error

Raw = dict[str, Any]

_BEYOND_INTEGERS = 2**63
_LONGEST_EDITS = 80
_SHOWN_ELSEWHERE = ("seeds", "title")
_MOST_NESTED = 100
_PART_OF_RECIPES = re.compile(r"(^|/)(expected|common)[^/]*$|\.search$")

_PACKAGE = Path(__file__).parent.parent
_IN_WHEEL = _PACKAGE / "_shipped"
SHIPPED = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent
"""Folder that holds `recipes/` and `baselines/`: inside an installed wheel, or the root of a checkout."""


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    steps: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(42,), min_length=1)
    data_seed: int = 0
    embedder_seed: int | None = None
    allow_leaks: bool = False


@dataclass(frozen=True)
class Recipe:
    """A validated recipe.

    seeds: one run each, for the recommender and, if embedder_seed is None, for the embedder too. data_seed: for
    tie order and the stored candidates, the same in all runs. raw: the resolved TOML.
    """

    name: str
    title: str
    steps: dict[str, Step]
    seeds: tuple[int, ...]
    data_seed: int
    embedder_seed: int | None
    allow_leaks: bool
    raw: Raw

    def toml(self) -> str:
        """The recipe as one TOML text: `extends`, `--set` and `--drop` resolved, every default written out."""
        header = {name: value for name, value in self.raw.items() if name in _Header.model_fields}
        tables = {name: step.spec() for name, step in self.steps.items()}
        return tomli_w.dumps({**header, **_without_none(tables)})


def load(recipe: str | Path, sets: Sequence[str] = (), drops: Sequence[str] = (), above: Raw | None = None) -> Recipe:
    """Read a recipe, apply `--set` and `--drop` edits, validate everything.

    recipe: a TOML file, or the name of a shipped recipe (`reaemb_full`, `recipes/reaemb_full.toml`). above: tables that
    are laid over those of the file before the edits.
    Raises UserError with one line that names the place of the mistake and its cure.
    """
    file = locate(recipe)
    raw = merge(read_toml(file), above or {})
    for text in sets:
        raw = merge(raw, parse_set(text, [*_step_names(raw), *_Header.model_fields], "step"))
    for path in drops:
        raw = drop(raw, path)
    return from_raw(raw, name_with_edits(name_of(file), sets, drops))


def name_of(file: Path) -> str:
    """The name of the recipe in a file; `recipe.toml` and `recipe_<variant>.toml` are named after their folder."""
    first, *variant = file.stem.split("_", maxsplit=1)
    return "_".join([file.resolve().parent.name, *variant]) if first == "recipe" else file.stem


def name_with_edits(name: str, sets: Sequence[str], drops: Sequence[str]) -> str:
    """The name of a recipe with edits, such as `quickstart (train.objective=bce) without crrl`.

    Seeds and titles are shown elsewhere and leave no trace. Of many edits the first are named and the others counted.
    """
    edits = [tuple(part.strip() for part in text.partition("=")) for text in sets]
    changes = ["".join(edit) for edit in edits if edit[0] not in _SHOWN_ELSEWHERE]
    named = [change for number, change in enumerate(changes) if len(", ".join(changes[: number + 1])) <= _LONGEST_EDITS]
    if len(named) < len(changes):
        named.append(f"{len(changes) - len(named)} {'more ' if named else ''}settings changed")
    changed = f" ({', '.join(named)})" if named else ""
    return f"{name}{changed}" + (f" without {', '.join(drops)}" if drops else "")


def locate(recipe: str | Path) -> Path:
    """The file that `recipe` stands for: as given, or among the shipped recipes. Raises UserError."""
    given = Path(recipe)
    for file in (given, SHIPPED / given, SHIPPED / "recipes" / given, SHIPPED / "recipes" / f"{given}.toml"):
        if is_file(file):
            return file
    known = shipped_names()
    hint = nearest(str(recipe).removeprefix("recipes/").removesuffix(".toml"), known)
    # The cure stands at the end, because a message that is too long loses its middle.
    raise UserError(
        f"there is no recipe {recipe}.{hint} Shipped: {', '.join(known)}. Give one of these, or a TOML file"
    )


def shipped_names() -> list[str]:
    """Names of the recipes and suites of this package, without those that only others extend."""
    folder = SHIPPED / "recipes"
    names = sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.toml"))
    return [name for name in names if not _PART_OF_RECIPES.search(name)]


def read_toml(file: Path, children: tuple[Path, ...] = ()) -> Raw:
    """The tables of a TOML file, laid over those of the file that it extends. Raises UserError.

    children: files that extend this one.
    """
    if file.resolve() in children:
        raise UserError(f"{file}: extends leads back to itself; break the circle")
    try:
        raw: Raw = _resolve_paths(tomllib.loads(file.read_text(encoding="utf-8-sig")), file.parent)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not in UTF-8 (byte {error.start + 1}); save it in that encoding") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not readable TOML: {error}; correct it there") from None
    except RecursionError:
        raise UserError(f"{file} is not readable TOML: nested too deeply; correct it") from None
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    if not isinstance(parent, str):
        raise RecipeError("extends takes one file name in quotes", ("extends",))
    in_folder = file.parent / parent
    return merge(read_toml(in_folder if is_file(in_folder) else locate(parent), (*children, file.resolve())), raw)


def _resolve_paths(value: Any, folder: Path, at: tuple[str, ...] = ()) -> Any:
    """The value with each path that is relative to the recipe's folder made absolute.

    These are `file.py:Class` names, and what looks like a path if it exists in that folder; other paths stay relative
    to the current folder. Raises RecipeError for a number beyond 64 bits, which TOML does not allow.
    """
    if isinstance(value, dict):
        return {name: _resolve_paths(part, folder, (*at, name)) for name, part in value.items()}
    if isinstance(value, list):
        return [_resolve_paths(part, folder, at) for part in value]
    if isinstance(value, int) and not -_BEYOND_INTEGERS <= value < _BEYOND_INTEGERS:
        raise RecipeError(f"give a smaller number, not {value}", at)
    if not isinstance(value, str):
        return value
    looks_like_path = at[-1:] == ("path",) or "/" in value or "." in value
    # Unlike Path.exists, this is False for a text that is too long for a path.
    if re.fullmatch(r"[^\s;]+\.py:\w+", value) or (looks_like_path and os.path.exists(folder / value)):  # noqa: PTH110
        return real_path(folder / value)
    return value


def from_raw(raw: Raw, name: str) -> Recipe:
    """A validated recipe from resolved TOML data. Raises RecipeError."""
    tables = {key: value for key, value in raw.items() if key not in _Header.model_fields and isinstance(value, dict)}
    try:
        header = _Header.model_validate({key: value for key, value in raw.items() if key not in tables})
    except ValidationError as error:
        raise settings_error(error, _Header.model_fields) from None
    for table in tables:
        if table not in header.steps:
            hint, known = nearest(table, header.steps), ", ".join(header.steps)
            raise RecipeError(f"this table belongs to no step.{hint} Remove it or name it in steps: {known}", (table,))
    if twice := {step for step in header.steps if header.steps.count(step) > 1}:
        cure = "give the second step a name of its own and a `use`"
        raise RecipeError(f"'{twice.pop()}' stands twice; {cure}", ("steps",))
    if len(set(header.seeds)) < len(header.seeds):
        why = "a spread over equal runs would say nothing"
        raise RecipeError(f"a seed stands twice, and {why}; name each once", ("seeds",))
    steps: dict[str, Step] = {}
    for step_name in header.steps:
        try:
            step = build("step", {"use": step_name, **tables.get(step_name, {})})
        except RecipeError as error:
            raise error.under(step_name) from None
        if not isinstance(step, Step):
            raise RecipeError(f"{step.use} is not a step: derive it from reaemb_bench.Step", (step_name,))
        for declared, allowed in (("data_access", get_args(DataAccess)), ("randomness", get_args(Randomness))):
            if getattr(step, declared) not in allowed:
                raise RecipeError(f"{step.use}.{declared} must be one of {', '.join(allowed)}", (step_name,))
        steps[step_name] = step
    settings = {**header.model_dump(exclude={"steps", "title"}), "title": header.title or name}
    return Recipe(name=name, steps=steps, raw=raw, **settings)


def merge(below: Raw, above: Raw) -> Raw:
    """`above` laid over `below`, table by table.

    A table that names another component than the one below replaces it whole, for its settings belong to the other.
    """
    merged = dict(below)
    for key, value in above.items():
        under: Any = {"use": merged[key]} if isinstance(merged.get(key), str) else merged.get(key)
        tables = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = (
            merge(under, value) if tables and value.get("use", under.get("use")) == under.get("use") else value
        )
    return merged


def drop(raw: Raw, path: str) -> Raw:
    """The recipe without the step `path`, or without the part that the dotted `path` names. Raises RecipeError."""
    first, *rest = path.split(".")
    steps = _step_names(raw)
    if first not in steps:
        hint = nearest(first, steps)
        raise RecipeError(f"nothing to drop: no step is called '{first}'.{hint} Steps: {', '.join(steps)}")
    if rest:
        return merge(raw, _nested([first, *rest], None))
    kept = {key: value for key, value in raw.items() if key != first}
    return {**kept, "steps": [step for step in steps if step != first]}


def parse_set(text: str, known: Sequence[str], what: str) -> Raw:
    """The tables that `--set a.b=value` lays over others. Raises RecipeError if `a` is not in `known`.

    what: what they are called, such as `step`.
    """
    path, equals, value = text.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts) or len(parts) > _MOST_NESTED:
        raise RecipeError(f"--set takes {what}.setting=value, not '{text}'")
    if parts[0] not in known:
        hint = nearest(parts[0], known)
        raise RecipeError(f"--set {text}: no {what} is called '{parts[0]}'.{hint} Known: {', '.join(known)}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        # Unquoted words are the usual case on a command line.
        parsed = value.strip()
    tables: Raw = _resolve_paths(_nested(parts, parsed), Path.cwd())
    return tables


def _step_names(raw: Raw) -> list[str]:
    """The names of the steps of a recipe that has not been validated."""
    steps = raw.get("steps")
    return [str(step) for step in steps] if isinstance(steps, list) else []


def _nested(parts: Sequence[str], value: Any) -> Raw:
    return dict(reduce(lambda inner, part: {part: inner}, reversed(parts), value))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value
