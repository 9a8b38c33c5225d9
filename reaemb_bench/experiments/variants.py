"""A recipe with changes: what `ablate`, `bench` and `sweep` run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import RecipeError
from reaemb_bench.core.plan import Job, Plan, plan
from reaemb_bench.core.recipe import Raw, Recipe, drop, from_raw, locate, merge
from reaemb_bench.core.registry import nearest


class Edits(BaseModel):
    """What a file changes in a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    set: Raw = Field(default_factory=dict)
    """Tables merged over those of the recipe, as in a recipe that extends it."""
    drop: list[str] = Field(default_factory=list)
    """Steps, or parts of steps, taken out afterwards."""


@dataclass(frozen=True)
class Variant:
    """A recipe to run under a name of its own, with one plan per seed. why: what it is meant to show, in one line."""

    name: str
    plans: tuple[Plan, ...]
    why: str = ""

    @property
    def recipe(self) -> Recipe:
        """The recipe that all plans share."""
        return self.plans[0].recipe

    def equals(self, other: Variant) -> bool:
        """Returns whether both have the same ranks in the store, so that running both would show nothing."""
        return [judge(planned).key for planned in self.plans] == [judge(planned).key for planned in other.plans]


def edited(base: Recipe, name: str, tables: Iterable[Raw], drops: Iterable[str] = ()) -> Recipe:
    """Returns the recipe with each of the tables merged over it in turn, then without the dropped steps and parts.

    Raises RecipeError if the result is not a valid recipe.
    """
    # With every default written out, an edit can reach a setting of a component that the recipe does not mention.
    raw = {**base.raw, **{step: component.spec() for step, component in base.steps.items()}}
    for table in tables:
        raw = merge(raw, table)
    for path in drops:
        raw = drop(raw, path)
    return from_raw(raw, name)


def planned_variant(recipe: Recipe, name: str, seeds: Sequence[int] = (), why: str = "") -> Variant:
    """Returns the recipe planned for each of the seeds, by default its own. Raises RecipeError if it ranks nothing."""
    plans = tuple(plan(recipe, seed) for seed in seeds or recipe.seeds)
    if plans[0].job_of(Ranks) is None:
        raise RecipeError('ranks nothing: add a step "rank"')
    return Variant(name, plans, why)


def judge(planned: Plan) -> Job:
    """Returns the step whose result makes a plan finished: the last that makes Ranks, else the last that makes Floors.

    Plans of variants and of floors have one.
    """
    job = planned.job_of(Ranks) or planned.job_of(Floors)
    assert job is not None
    return job


def file_near(name_or_file: str, folder: Path) -> Path:
    """Returns the recipe file of a name in a file of `folder`: relative to that folder, else as `locate` finds it."""
    near = folder / name_or_file
    return near if near.is_file() else locate(name_or_file)


def check_paths(recipe: Recipe, paths: Iterable[str]) -> None:
    """Raises RecipeError if the recipe has nothing at one of the dotted paths, naming the nearest one that it has."""

    def below(component: Component, path: str) -> Iterator[tuple[str, bool]]:
        """Each path from `path` on, and whether it is a plain setting, not a component."""
        yield from ((path, False), (f"{path}.use", False))
        for name in type(component).model_fields:
            value = getattr(component, name)
            if isinstance(value, Component):
                yield from below(value, f"{path}.{name}")
            else:
                yield f"{path}.{name}", True

    known = {path: plain for step, component in recipe.steps.items() for path, plain in below(component, step)}
    for path in paths:
        # The inside of a setting that is not a component is for that setting's own validation.
        if path not in known and not any(plain and path.startswith(f"{above}.") for above, plain in known.items()):
            same_ending = [other for other in known if other.rpartition(".")[2] == path.rpartition(".")[2]]
            hint = nearest(path, same_ending) or nearest(path, known)
            raise RecipeError(f"the recipe has nothing at '{path}'.{hint} Steps: {', '.join(recipe.steps)}")


def paths_in(tables: Raw) -> Iterator[str]:
    """Yields the paths that tables would change; a table with its own `use` is one path, the component's."""
    for key, value in tables.items():
        if isinstance(value, dict) and "use" not in value:
            yield from (f"{key}.{path}" for path in paths_in(value))
        else:
            yield key
