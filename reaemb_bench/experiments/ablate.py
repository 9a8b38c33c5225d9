"""The dotted paths by which an edit names a step of a recipe, a part of one or a setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.plan import Plan, plan
from reaemb_bench.core.recipe import Raw, Recipe, drop, from_raw, load, locate, merge, parse_set, read_toml
from reaemb_bench.core.registry import nearest, settings_error
from reaemb_bench.core.store import Store
from reaemb_bench.report.differences import differences_table
from reaemb_bench.report.results import check_comparable, results_table
from reaemb_bench.report.table import Table


def check_paths(recipe: Recipe, wanted: Iterable[str]) -> None:
    """Raises RecipeError where the recipe has nothing at one of the paths, naming the nearest that it has."""
    known = {path: whole for name, step in recipe.steps.items() for path, whole in _below(step, name)}
    for path in wanted:
        # What lies inside a setting that is no component is for its own validation to judge.
        if path not in known and not any(whole and path.startswith(f"{each}.") for each, whole in known.items()):
            last = path.rpartition(".")[2]
            elsewhere = [each for each in known if each.rpartition(".")[2] == last]
            hint = nearest(path, elsewhere) or nearest(path, known)
            raise RecipeError(f"the recipe has nothing at '{path}'.{hint} Steps: {', '.join(recipe.steps)}")


def paths_in(tables: Raw) -> Iterator[str]:
    """The paths that tables would change; a table with a `use` of its own is one, for its settings belong to that."""
    for key, value in tables.items():
        if isinstance(value, dict) and "use" not in value:
            yield from (f"{key}.{path}" for path in paths_in(value))
        else:
            yield key


def _below(component: Component, place: str) -> Iterator[tuple[str, bool]]:
    """Each path from `place` on, and whether it is a setting that holds no component."""
    yield place, False
    yield f"{place}.use", False
    for name in type(component).model_fields:
        value, path = getattr(component, name), f"{place}.{name}"
        if isinstance(value, Component):
            yield from _below(value, path)
        else:
            yield path, True


# Variants of a recipe: what changes, and the plans of what comes of it.


@dataclass(frozen=True)
class Variant:
    """A recipe to run, and what people call it; a plan a seed. why: what it is to show, in one line, or nothing."""

    name: str
    plans: tuple[Plan, ...]
    why: str = ""

    @property
    def recipe(self) -> Recipe:
        """The recipe of all its plans."""
        return self.plans[0].recipe

    def equals(self, other: Variant) -> bool:
        """Whether both come to the same ranks for the same reasons, so that running both would say nothing."""
        return self._judged() == other._judged()

    def _judged(self) -> list[str]:
        return [job.key for planned in self.plans if (job := planned.job_of(Ranks)) is not None]


def of(recipe: Recipe, name: str, why: str = "") -> Variant:
    """The recipe as it is. Raises RecipeError where its steps do not chain or rank nothing."""
    plans = tuple(plan(recipe, seed) for seed in recipe.seeds)
    if plans[0].job_of(Ranks) is None:
        raise RecipeError('ranks nothing: add a step "rank"')
    return Variant(name, plans, why)


def changed(base: Recipe, name: str, tables: Raw, drops: Sequence[str] = (), why: str = "") -> Variant:
    """The recipe with tables laid over its own, then steps or parts of steps taken out.

    Raises RecipeError where a path leads nowhere, or what comes out is no recipe that ranks.
    """
    inside = {step: value for step, value in tables.items() if step in base.steps}
    check_paths(base, [*paths_in(inside), *drops])
    # With every default written out, an edit can name a setting of a component that the recipe left unsaid.
    written_out = {name: step.spec() for name, step in base.steps.items()}
    raw = merge({**base.raw, **written_out}, tables)
    for path in drops:
        raw = drop(raw, path)
    title = raw.get("title") or base.title
    return of(from_raw({**raw, "title": f"{title}, {name}"}, f"{base.name}/{name}"), name, why)


def dropped(base: Recipe, text: str) -> Variant:
    """The variant of `--drop`: without one path, or without several that commas divide."""
    paths = [path.strip() for path in text.split(",")]
    return changed(base, f"without {', '.join(paths)}", {}, paths)


def swapped(base: Recipe, text: str) -> Variant:
    """The variant of `--swap step.setting=value`."""
    path, equals, value = (part.strip() for part in text.partition("="))
    if not equals or "." not in path:
        raise RecipeError("give step.setting=value")
    check_paths(base, [path])
    return changed(base, f"{path}={value}", parse_set(text, list(base.steps), "step"))


def each_step_dropped(base: Recipe) -> Iterator[Variant]:
    """A variant without each step that the recipe can do without and that its ranks depend on."""
    whole = of(base, base.name)
    for step in base.steps:
        try:
            variant = dropped(base, step)
        except RecipeError:
            continue
        if not variant.equals(whole):
            yield variant


def check_names(variants: Sequence[Variant]) -> None:
    """Raises UserError where two variants have one name."""
    names = [variant.name for variant in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two variants are called '{twice}'; name each once")


# What an ablation runs: a recipe and edits from the command line, or a file that names both.


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


# The tables of an ablation, from what the store holds.


def unlike(ablation: Ablation, store: Store, finished: Mapping[str, Variant]) -> dict[str, str]:
    """Why variants that were computed cannot stand beside the base: they rank other users or targets."""
    base = _ranks(ablation.base, store)[0]
    reasons = {}
    for name, variant in finished.items():
        try:
            check_comparable([base, *_ranks(variant, store)])
        except UserError as error:
            reasons[name] = str(error)
    return reasons


def ablation_tables(ablation: Ablation, store: Store, reasons: Mapping[str, str]) -> list[Table]:
    """The base, its variants and the floors; then how far each variant stands from the base.

    reasons: why a variant has no results or none that compare, by its name; it is left out, and the reason stands
    below, as does what a variant is to show, and which variants equal the base.
    """
    shown = [ablation.base, *(variant for variant in ablation.variants if variant.name not in reasons)]
    named = {variant.name: _ranks(variant, store) for variant in shown}
    leaks = {variant.name: variant.plans[0].leaks for variant in shown if variant.plans[0].leaks}
    table = results_table(
        ablation.title,
        named,
        fetch(ablation.base.plans[0], store, Floors),
        list(dict.fromkeys(step for steps in leaks.values() for step in steps)),
        embedder_seed=ablation.base.recipe.embedder_seed,
        leaking=leaks,
        compared=False,
    )
    notes = [f"{variant.name}: {variant.why}" for variant in shown if variant.why]
    notes += [f"not shown: {name}: it changes nothing in this base" for name in ablation.equal]
    notes += [f"missing: {name}: {reason}" for name, reason in reasons.items()]
    table = replace(table, notes=(*table.notes, *notes))
    if len(shown) == 1:
        return [table]
    return [table, differences_table(f"Differences from {ablation.base.name}", named, ablation.base.name, leaks=leaks)]


def _ranks(variant: Variant, store: Store) -> list[Ranks]:
    found = (fetch(planned, store, Ranks) for planned in variant.plans)
    return [ranks for ranks in found if ranks is not None]
