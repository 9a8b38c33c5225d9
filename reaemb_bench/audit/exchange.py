"""Recipes whose held-out items are exchanged among users, while every training row stays where it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from reaemb_bench.component import Component
from reaemb_bench.data.interactions import Interactions
from reaemb_bench.errors import UserError
from reaemb_bench.kinds import AnySource, AnySplit, ManyFilters
from reaemb_bench.machine import Machine
from reaemb_bench.pipeline import plan
from reaemb_bench.recipe import Recipe
from reaemb_bench.steps.prepare import Prepare

if TYPE_CHECKING:
    import polars

Parts = Literal["nothing", "test", "validation and test"]
"""Which held-out items are exchanged: none, those that only judges may see, or all."""

_ROW = "_row"
_SEED = 2_654_435_769
"""Decides who gets whose items, whatever the recipe's seeds are."""


class Exchanged(Component):
    """A source whose rows are filtered already, with the items of held-out rows dealt anew within each part.

    Users, times, ratings, the number of rows and how often each item occurs stay as they are. Filters and split of the
    recipe run on these rows again, so that whatever they remember is of exchanged rows too.
    """

    source: AnySource
    """The recipe's own source."""
    filters: ManyFilters
    """The recipe's filters; they must find nothing more to remove where they have been."""
    split: AnySplit
    """What tells which rows are held out."""
    seed: int
    """The seed that the split is given."""
    parts: Parts
    """What is exchanged."""

    def read(self, machine: Machine) -> Interactions:
        """The rows of the source, in its order. Raises UserError where the split loses sight of its rows."""
        data = self.source.read(machine)
        for each in self.filters:
            data = each.apply(data)
        if self.parts == "nothing":
            return data
        rows = data.frame.with_row_index(_ROW)
        kept = {"training"} if self.parts == "validation and test" else {"training", "validation"}
        divided = vars(self.split.apply(replace(data, frame=rows), self.seed))
        return replace(
            data, frame=_dealt_anew(data.frame, [part for name, part in divided.items() if name not in kept])
        )


def exchanged(recipe: Recipe, seed: int, parts: Parts) -> Recipe:
    """The recipe on data whose held-out items are exchanged.

    Raises UserError where no `prepare` step divides the data, for nothing else knows which rows are held out.
    """
    steps = dict(recipe.steps)
    for job in plan(recipe, seed).jobs:
        step = job.step
        if isinstance(step, Prepare):
            source = Exchanged(
                source=step.source, filters=step.filters, split=step.split, seed=job.seed or 0, parts=parts
            )
            steps[job.name] = step.model_copy(update={"source": source})
    if steps == recipe.steps:
        raise UserError(
            "held-out items can be exchanged only where a step 'prepare' divides the data, and this recipe has none; "
            "--dry shows what its steps read"
        )
    return replace(recipe, title=f"{recipe.title}, {parts} exchanged", steps=steps)


def _dealt_anew(frame: polars.DataFrame, parts: list[polars.DataFrame]) -> polars.DataFrame:
    """The frame with the items of each part's rows given to other rows of that part."""
    origin = np.arange(frame.height)
    generator = np.random.default_rng(_SEED)
    for part in parts:
        if _ROW not in part.columns:
            raise UserError("the split drops columns of the rows that it divides, so the audit cannot follow them")
        rows = generator.permutation(part[_ROW].to_numpy())
        origin[rows] = np.roll(rows, 1)
    return frame.with_columns(frame["item"].gather(origin))
