"""What an ablation runs: a recipe and edits from the command line, or a file that names both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reaemb_bench.ablation.variants import Variant, changed, check_names, dropped, each_step_dropped, of, swapped
from reaemb_bench.errors import RecipeError, UserError
from reaemb_bench.recipe import Raw, Recipe, load, locate, read_toml
from reaemb_bench.registry import nearest, settings_error


class Entry(BaseModel):
    """A variant in an ablations file: what it changes in the base."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    set: Raw = Field(default_factory=dict)
    """Tables that are laid over the recipe's, as a recipe that extends it would do."""
    drop: list[str] = Field(default_factory=list)
    """Steps, or parts of steps, that are taken out afterwards."""
    why: str = ""
    """What it is to show, in one line."""


class File(BaseModel):
    """A validated ablations file; tables are raw TOML until they meet the recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    title: str = ""
    """Stands above the tables; empty takes the recipe's."""
    recipe: str
    """The base: a recipe file, relative to this one, or the name of a shipped recipe."""
    variants: dict[str, Entry] = Field(min_length=1)
    """By their names in the tables."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. drops, swaps: a variant each. each: those of `each_step_dropped` too.

    only: names of the file's variants to run, all where it is empty. base: takes the place of the file's recipe.
    sets: `--set` edits of the base, which all variants share.
    """

    drops: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()
    each: bool = False
    only: tuple[str, ...] = ()
    base: str | None = None
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ablation:
    """The base and its variants, planned. equal: names of variants in the file that change nothing in this base."""

    title: str
    base: Variant
    variants: tuple[Variant, ...]
    equal: tuple[str, ...]


def read_ablation(place: str, asked: Asked) -> Ablation:
    """The ablation of a recipe, or of the recipe that an ablations file names.

    place: a TOML file, or the name of a shipped one. Raises UserError with one line that names the mistake's place.
    """
    file = locate(place)
    read = None if "steps" in read_toml(file) else _read_file(file)
    if read is None and (asked.only or asked.base):
        raise UserError(f"{place} is a recipe; --only and --base are for files that name variants")
    recipe = load(_base(read, file, asked), asked.sets)
    base = of(recipe, recipe.name)
    listed = [] if read is None else _listed(read, file, recipe, asked.only)
    equal = [variant for variant in listed if variant.equals(base)]
    edits = [_edited(base, dropped, "--drop", text) for text in asked.drops]
    edits += [_edited(base, swapped, "--swap", text) for text in asked.swaps]
    variants = [*(variant for variant in listed if variant not in equal), *edits]
    variants += [variant for variant in _by_step(recipe, asked) if not any(map(variant.equals, variants))]
    if not variants and not equal:
        raise UserError("nothing to compare: give --drop, --swap or --each, or a file that names variants")
    check_names([base, *variants])
    title = read.title if read is not None else ""
    return Ablation(title or recipe.title, base, tuple(variants), tuple(variant.name for variant in equal))


def _read_file(file: Path) -> File:
    try:
        return File.model_validate(read_toml(file))
    except ValidationError as error:
        inside = len(error.errors()[0]["loc"]) > 2
        known = Entry.model_fields if inside else File.model_fields
        raise UserError(f"{file}, {settings_error(error, known)}") from None


def _base(read: File | None, file: Path, asked: Asked) -> str | Path:
    if read is None:
        return file
    if asked.base is not None:
        return asked.base
    beside = file.parent / read.recipe
    return beside if beside.is_file() else read.recipe


def _listed(read: File, file: Path, base: Recipe, only: Sequence[str]) -> list[Variant]:
    for name in only:
        if name not in read.variants:
            known = ", ".join(read.variants)
            raise UserError(f"--only {name}: no variant has this name.{nearest(name, read.variants)} Known: {known}")
    made = []
    for name, entry in read.variants.items():
        if not only or name in only:
            try:
                made.append(changed(base, name, entry.set, entry.drop, entry.why))
            except RecipeError as error:
                raise UserError(f"{file}, {error.under('variants', name)}") from None
    return made


def _by_step(recipe: Recipe, asked: Asked) -> list[Variant]:
    made = list(each_step_dropped(recipe)) if asked.each else []
    if asked.each and not made:
        raise UserError("--each: this recipe can do without none of its steps")
    return made


def _edited(base: Variant, make: Callable[[Recipe, str], Variant], option: str, text: str) -> Variant:
    try:
        variant = make(base.recipe, text)
    except RecipeError as error:
        raise UserError(f"{option} {text}: {error}") from None
    if variant.equals(base):
        raise UserError(f"{option} {text}: this changes nothing on the way to the ranks of {base.name}")
    return variant
