"""A recipe with changes: what `ablate`, `bench` and `sweep` run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.errors import RecipeError
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.plan import Job, Plan, plan
from reaemb_bench.core.recipe import Raw, Recipe, drop, from_raw, locate, merge
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.leak_test import shorten
from reaemb_bench.evaluation.metrics import ndcg


class Edits(BaseModel):
    """What a file changes in a recipe: tables merged over its own, then steps or parts of steps taken out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: Raw = Field(default_factory=dict)
    drop: list[str] = Field(default_factory=list)


SMOKE = "smoke run"
"""Marks names and titles of results that only show that a recipe runs."""


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


def limited(recipe: Recipe) -> Recipe:
    """Returns the recipe as a smoke run: 100 users and items, two steps and epochs, one seed; its name says so.

    Its data, and so all its results, have keys of their own.
    """
    shorter, _ = shorten(recipe)
    raw: Raw = {**shorter.raw, "seeds": [recipe.seeds[0]], "title": f"{recipe.title} ({SMOKE})"}
    for name, step in shorter.steps.items():
        if "filters" in type(step).model_fields:
            raw = merge(raw, {name: {"filters": [*step.spec()["filters"], {"use": "limit"}]}})
    return from_raw(raw, f"{recipe.name} ({SMOKE})")


def judge(planned: Plan) -> Job:
    """Returns the step whose result makes a plan finished: the last that makes Ranks, else the last that makes Floors.

    Plans of variants and of floors have one.
    """
    job = planned.job_of(Ranks) or planned.job_of(Floors)
    assert job is not None
    return job


def reached(plans: Iterable[Plan], store: Store) -> float | None:
    """Returns NDCG@10 over the users and seeds of executed plans; None if they rank nothing."""
    ranks = [one for planned in plans if (one := fetch(planned, store, Ranks)) is not None and len(one.users)]
    return fmean(float(ndcg(one.better, one.tied, 10).mean()) for one in ranks) if ranks else None


def file_near(name_or_file: str, folder: Path) -> Path:
    """Returns the recipe file of a name in a file of `folder`: relative to that folder, else as `locate` finds it."""
    near = folder / name_or_file
    return near if near.is_file() else locate(name_or_file)
