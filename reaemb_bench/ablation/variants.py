"""Variants of a recipe: what changes, and the plans of what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reaemb_bench.ablation.paths import check_paths, paths_in
from reaemb_bench.artifacts import Ranks
from reaemb_bench.errors import RecipeError, UserError
from reaemb_bench.pipeline import Plan, plan
from reaemb_bench.recipe import Raw, Recipe, drop, from_raw, merge, parse_set


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
