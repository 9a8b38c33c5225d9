"""Ablations: variants of one recipe, from the command line or a file, and how far each is from the recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reaemb_bench.core.artifacts import Alignment, Floors, Ranks
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.recipe import Raw, Recipe, load, locate, name_with_edits, parse_set, read_toml
from reaemb_bench.core.registry import nearest, settings_error
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.comparability import check_comparable
from reaemb_bench.experiments.variants import SMOKE, Edits, Variant, edited, file_near, limited, planned_variant
from reaemb_bench.report.alignment import alignment_table
from reaemb_bench.report.recipe_tables import origin_notes, plan_manifests
from reaemb_bench.report.results import differences_table, results_table
from reaemb_bench.report.table import Table


class ListedVariant(Edits):
    """A variant in an ablations file. why: what it is meant to show, in one line."""

    why: str = ""


class AblationsFile(BaseModel):
    """A validated ablations file; tables are raw TOML until they are merged into the recipe.

    title: of the tables; by default the recipe's. recipe: the base, a file relative to this one, or the name of a
    shipped recipe. variants: by their names in the tables.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = ""
    recipe: str
    variants: dict[str, ListedVariant] = Field(min_length=1)


@dataclass(frozen=True)
class Ablation:
    """The base and its variants, planned. equal: names of variants in the file that change nothing in this base."""

    title: str
    base: Variant
    variants: tuple[Variant, ...]
    equal: tuple[str, ...]


def read_ablation(
    name_or_file: str,
    drops: Sequence[str] = (),
    swaps: Sequence[str] = (),
    only: Sequence[str] = (),
    sets: Sequence[str] = (),
    *,
    each_step: bool = False,
    base: str | None = None,
) -> Ablation:
    """Returns the ablation of a recipe, or of the recipe that an ablations file names: a TOML file, or a shipped name.

    drops, swaps: one variant each. each_step: also a variant without each step that the recipe can do without. only:
    names of the file's variants to run, empty for all. base: a recipe instead of the file's. sets: `--set` edits of the
    base. Raises UserError with one line that names the place of a mistake.
    """
    file = locate(name_or_file)
    raw = read_toml(file)
    title, listed, source = "", dict[str, ListedVariant](), str(file)
    if "steps" not in raw:
        try:
            read = AblationsFile.model_validate(raw)
        except ValidationError as error:
            inside = len(error.errors()[0]["loc"]) > 2
            known = ListedVariant.model_fields if inside else AblationsFile.model_fields
            raise UserError(f"{file}, {settings_error(error, known)}") from None
        title, listed, source = read.title, read.variants, base or str(file_near(read.recipe, file.parent))
    elif only or base:
        raise UserError(f"{name_or_file} is a recipe; --only and --base are for files that name variants")
    recipe = load(source, sets)
    whole = planned_variant(recipe, recipe.name)

    variants, equal = list[Variant](), list[str]()
    for name in only:
        if name not in listed:
            hint = f"{nearest(name, listed)} Known: {', '.join(listed)}"
            raise UserError(f"--only {name}: no variant has this name.{hint}")
    for name, entry in listed.items():
        if only and name not in only:
            continue
        try:
            variant = _variant(recipe, name, entry.set, entry.drop, f"{recipe.name}/{name}", name, entry.why)
        except RecipeError as error:
            raise UserError(f"{file}, {error.under('variants', name)}") from None
        if variant.equals(whole):
            equal.append(name)
        else:
            variants.append(variant)
    for option, text in (*(("--drop", text) for text in drops), *(("--swap", text) for text in swaps)):
        try:
            variant = _without(recipe, text) if option == "--drop" else _swapped(recipe, text)
        except RecipeError as error:
            raise UserError(f"{option} {text}: {error}") from None
        if variant.equals(whole):
            raise UserError(f"{option} {text}: this changes nothing on the way to the ranks of {whole.name}")
        variants.append(variant)
    if each_step:
        by_step = []
        for step in recipe.steps:
            try:
                by_step.append(_without(recipe, step))
            except RecipeError:
                # The others cannot do without it.
                continue
        by_step = [variant for variant in by_step if not variant.equals(whole)]
        if not by_step:
            raise UserError("--each: this recipe can do without none of its steps")
        variants += [variant for variant in by_step if not any(map(variant.equals, variants))]

    if not variants and not equal:
        raise UserError("nothing to compare: give --drop, --swap or --each, or a file that names variants")
    names = [variant.name for variant in (whole, *variants)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two variants are called '{twice}'; name each once")
    return Ablation(title or recipe.title, whole, tuple(variants), tuple(equal))


def limited_ablation(ablation: Ablation) -> Ablation:
    """Returns the base and its variants as smoke runs, see `limited`; their names say so."""
    base, *variants = (
        planned_variant(limited(variant.recipe), f"{variant.name} ({SMOKE})", why=variant.why)
        for variant in (ablation.base, *ablation.variants)
    )
    return replace(ablation, title=f"{ablation.title} ({SMOKE})", base=base, variants=tuple(variants))


def _without(base: Recipe, text: str) -> Variant:
    """Returns the variant of `--drop`: without one path, or without several separated by commas."""
    paths = [path.strip() for path in text.split(",")]
    name = name_with_edits(base.name, (), paths)
    return _variant(base, name.removeprefix(base.name).strip(), {}, paths, name, name)


def _swapped(base: Recipe, text: str) -> Variant:
    """Returns the variant of `--swap step.setting=value`."""
    path, equals, value = (part.strip() for part in text.partition("="))
    if not equals or "." not in path:
        raise RecipeError("give step.setting=value")
    _check_paths(base, [path])
    name, tables = name_with_edits(base.name, [text], ()), parse_set(text, list(base.steps), "step")
    return _variant(base, f"{path}={value}", tables, (), name, name)


def _variant(
    base: Recipe, change: str, tables: Raw, drops: Sequence[str], recipe_name: str, name: str, why: str = ""
) -> Variant:
    """Returns the recipe with tables merged over it and then paths dropped, planned. change: for its title.

    Raises RecipeError if the recipe has nothing at a path, or if the result is not a valid recipe that ranks something.
    """
    inside = {step: table for step, table in tables.items() if step in base.steps}
    _check_paths(base, [*_paths_in(inside), *drops])
    title: Raw = {"title": f"{tables.get('title') or base.title}, {change}"}
    return planned_variant(edited(base, recipe_name, [tables, title], drops), name, why=why)


def _paths_in(tables: Raw) -> Iterator[str]:
    """Yields the paths that tables would change; a table with its own `use` is one path, the component's."""
    for key, value in tables.items():
        if isinstance(value, dict) and "use" not in value:
            yield from (f"{key}.{path}" for path in _paths_in(value))
        else:
            yield key


def _check_paths(recipe: Recipe, paths: Sequence[str]) -> None:
    """Raises RecipeError if the recipe has nothing at one of the dotted paths, naming the nearest one that it has."""
    plain_settings: list[str] = []
    known: list[str] = []
    waiting: list[tuple[str, object]] = [*reversed(recipe.steps.items())]
    while waiting:
        path, value = waiting.pop()
        known.append(path)
        if isinstance(value, Component):
            known.append(f"{path}.use")
            waiting += [(f"{path}.{name}", getattr(value, name)) for name in reversed(list(type(value).model_fields))]
        else:
            plain_settings.append(f"{path}.")
    for path in paths:
        # The inside of a setting that is not a component is for that setting's own validation.
        if path not in known and not path.startswith(tuple(plain_settings)):
            same_ending = [other for other in known if other.rpartition(".")[2] == path.rpartition(".")[2]]
            hint = nearest(path, same_ending) or nearest(path, known)
            raise RecipeError(f"the recipe has nothing at '{path}'.{hint} Steps: {', '.join(recipe.steps)}")


def unlike(ablation: Ablation, store: Store, finished: Sequence[Variant]) -> dict[str, str]:
    """Returns why variants that were computed cannot be compared with the base: other users or targets are ranked."""
    base, reasons = _ranks(ablation.base, store), {}
    for variant in finished:
        try:
            check_comparable({ablation.base.name: base, variant.name: _ranks(variant, store)})
        except UserError as error:
            reasons[variant.name] = str(error)
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
    tables = [table]
    if len(shown) > 1:
        heading = f"Differences from {ablation.base.name}"
        differences = differences_table(heading, ranks, ablation.base.name, leaks=leaks)
        tables = [replace(table, verdict=differences.verdict), replace(differences, verdict="")]
    by_variant = {
        variant.name: [one for planned in variant.plans if (one := fetch(planned, store, Alignment)) is not None]
        for variant in shown
    }
    aligned = alignment_table(by_variant)
    return tables if aligned is None else [*tables, aligned]


def _ranks(variant: Variant, store: Store) -> list[Ranks]:
    by_seed = (fetch(planned, store, Ranks) for planned in variant.plans)
    return [ranks for ranks in by_seed if ranks is not None]
