"""Ablations: variants of one recipe, from the command line or a file, and how far each is from the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.recipe import Raw, Recipe, load, locate, name_with_edits, parse_set, read_toml
from reaemb_bench.core.registry import nearest, settings_error
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.comparability import check_comparable
from reaemb_bench.experiments.variants import Edits, Variant, check_paths, edited, paths_in, planned_variant
from reaemb_bench.report.recipe_tables import origin_notes, plan_manifests
from reaemb_bench.report.results import differences_table, results_table
from reaemb_bench.report.table import Table


class ListedVariant(Edits):
    """A variant in an ablations file."""

    why: str = ""
    """What it is meant to show, in one line."""


class AblationsFile(BaseModel):
    """A validated ablations file; tables are raw TOML until they are merged into the recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    title: str = ""
    """Heading of the tables; by default the recipe's title."""
    recipe: str
    """The base: a recipe file, relative to this one, or the name of a shipped recipe."""
    variants: dict[str, ListedVariant] = Field(min_length=1)
    """By their names in the tables."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    drops, swaps: one variant each. each_step: also a variant without each step that the recipe can do without.
    only: names of the file's variants to run, empty for all. base: a recipe instead of the file's. sets: `--set` edits
    of the base.
    """

    drops: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()
    each_step: bool = False
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


def read_ablation(name_or_file: str, asked: Asked) -> Ablation:
    """Returns the ablation of a recipe, or of the recipe that an ablations file names.

    place: a TOML file, or the name of a shipped one. Raises UserError with one line that names the place of a mistake.
    """
    file = locate(name_or_file)
    read = None if "steps" in read_toml(file) else _read_file(file)
    if read is None and (asked.only or asked.base):
        raise UserError(f"{name_or_file} is a recipe; --only and --base are for files that name variants")
    if read is None:
        recipe = load(file, asked.sets)
    else:
        near = file.parent / read.recipe
        recipe = load(asked.base or (near if near.is_file() else read.recipe), asked.sets)
    base = planned_variant(recipe, recipe.name)

    listed = [] if read is None else _listed(read, file, recipe, asked.only)
    equal = [variant for variant in listed if variant.equals(base)]
    variants = [variant for variant in listed if variant not in equal]
    for option, texts in (("--drop", asked.drops), ("--swap", asked.swaps)):
        for text in texts:
            try:
                variant = _without(recipe, text) if option == "--drop" else _swapped(recipe, text)
            except RecipeError as error:
                raise UserError(f"{option} {text}: {error}") from None
            if variant.equals(base):
                raise UserError(f"{option} {text}: this changes nothing on the way to the ranks of {base.name}")
            variants.append(variant)
    if asked.each_step:
        by_step = list(_each_step_dropped(base))
        if not by_step:
            raise UserError("--each: this recipe can do without none of its steps")
        variants += [variant for variant in by_step if not any(map(variant.equals, variants))]

    if not variants and not equal:
        raise UserError("nothing to compare: give --drop, --swap or --each, or a file that names variants")
    names = [variant.name for variant in (base, *variants)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two variants are called '{twice}'; name each once")
    title = (read.title if read else "") or recipe.title
    return Ablation(title, base, tuple(variants), tuple(variant.name for variant in equal))


def _read_file(file: Path) -> AblationsFile:
    try:
        return AblationsFile.model_validate(read_toml(file))
    except ValidationError as error:
        inside = len(error.errors()[0]["loc"]) > 2
        known = ListedVariant.model_fields if inside else AblationsFile.model_fields
        raise UserError(f"{file}, {settings_error(error, known)}") from None


def _listed(read: AblationsFile, file: Path, base: Recipe, only: Sequence[str]) -> list[Variant]:
    for name in only:
        if name not in read.variants:
            known = ", ".join(read.variants)
            raise UserError(f"--only {name}: no variant has this name.{nearest(name, read.variants)} Known: {known}")
    variants = []
    for name, entry in read.variants.items():
        if not only or name in only:
            try:
                recipe = _changed(base, f"{base.name}/{name}", name, entry.set, entry.drop)
                variants.append(planned_variant(recipe, name, why=entry.why))
            except RecipeError as error:
                raise UserError(f"{file}, {error.under('variants', name)}") from None
    return variants


def _without(base: Recipe, text: str) -> Variant:
    """Returns the variant of `--drop`: without one path, or without several separated by commas."""
    paths = [path.strip() for path in text.split(",")]
    name = name_with_edits(base.name, (), paths)
    return planned_variant(_changed(base, name, name.removeprefix(base.name).strip(), {}, paths), name)


def _swapped(base: Recipe, text: str) -> Variant:
    """Returns the variant of `--swap step.setting=value`."""
    path, equals, value = (part.strip() for part in text.partition("="))
    if not equals or "." not in path:
        raise RecipeError("give step.setting=value")
    check_paths(base, [path])
    name, tables = name_with_edits(base.name, [text], ()), parse_set(text, list(base.steps), "step")
    return planned_variant(_changed(base, name, f"{path}={value}", tables), name)


def _each_step_dropped(base: Variant) -> Iterator[Variant]:
    """Yields a variant without each step that the recipe can do without and that its ranks depend on."""
    for step in base.recipe.steps:
        try:
            variant = _without(base.recipe, step)
        except RecipeError:
            continue
        if not variant.equals(base):
            yield variant


def _changed(base: Recipe, name: str, change: str, tables: Raw, drops: Sequence[str] = ()) -> Recipe:
    """Returns the recipe with tables merged over it and then paths dropped. change: for its title.

    Raises RecipeError if the recipe has nothing at a path, or if the result is not a valid recipe.
    """
    inside = {step: table for step, table in tables.items() if step in base.steps}
    check_paths(base, [*paths_in(inside), *drops])
    title: Raw = {"title": f"{tables.get('title') or base.title}, {change}"}
    return edited(base, name, [tables, title], drops)


def unlike(ablation: Ablation, store: Store, finished: Mapping[str, Variant]) -> dict[str, str]:
    """Returns why variants that were computed cannot be compared with the base: other users or targets are ranked."""
    base = _ranks(ablation.base, store)
    reasons = {}
    for name, variant in finished.items():
        try:
            check_comparable({ablation.base.name: base, name: _ranks(variant, store)})
        except UserError as error:
            reasons[name] = str(error)
    return reasons


def ablation_tables(ablation: Ablation, store: Store, reasons: Mapping[str, str]) -> list[Table]:
    """Returns the table of the base, its variants and the floors; then that of each variant's difference from the base.

    reasons: why a variant has no results or none that compare, by its name. Such variants are only named below, with
    what each variant is meant to show, and which variants equal the base.
    """
    shown = [ablation.base, *(variant for variant in ablation.variants if variant.name not in reasons)]
    ranks = {variant.name: _ranks(variant, store) for variant in shown}
    leaks = {variant.name: variant.plans[0].leaks for variant in shown if variant.plans[0].leaks}
    table = results_table(
        ablation.title,
        ranks,
        fetch(ablation.base.plans[0], store, Floors),
        list(dict.fromkeys(step for steps in leaks.values() for step in steps)),
        embedder_seed=ablation.base.recipe.embedder_seed,
        leaking=leaks,
        compared=False,
    )
    notes = origin_notes({variant.name: plan_manifests(variant.plans, store) for variant in shown})
    notes += [f"{variant.name}: {variant.why}" for variant in shown if variant.why]
    notes += [f"not shown: {name}: it changes nothing in this base" for name in ablation.equal]
    notes += [f"missing: {name}: {reason}" for name, reason in reasons.items()]
    table = replace(table, notes=(*table.notes, *notes))
    if len(shown) == 1:
        return [table]
    return [table, differences_table(f"Differences from {ablation.base.name}", ranks, ablation.base.name, leaks=leaks)]


def _ranks(variant: Variant, store: Store) -> list[Ranks]:
    by_seed = (fetch(planned, store, Ranks) for planned in variant.plans)
    return [ranks for ranks in by_seed if ranks is not None]
