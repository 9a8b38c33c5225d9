"""Judge the methods that learn nothing by the same test targets."""

from __future__ import annotations

from typing import ClassVar, cast

from pydantic import Field

from reaemb_bench.artifacts import Corpus, Floors, Holdout, Ranks
from reaemb_bench.component import Component, Sight, Step
from reaemb_bench.context import Context, Tick
from reaemb_bench.errors import UserError
from reaemb_bench.kinds import ManyFloors


class RankFloors(Step):
    """Rank each user's test target by floors: random order, popularity, co-occurrence with the history or its end."""

    sees: ClassVar[Sight] = "test"

    floors: ManyFloors = cast("ManyFloors", ("random", "popularity", "item-knn", "last-item-knn"))
    """The methods, each named once."""
    top: int = Field(default=10, ge=0)
    """Length of the lists of recommended items that are kept, for coverage, Gini index and the like; 0 keeps none."""

    def run(self, corpus: Corpus, holdout: Holdout, context: Context) -> Floors:
        """Ranks of each floor. Raises UserError where two have the same name or a score is not finite."""
        from reaemb_bench.evaluation.ranking import rank_targets

        by_name: dict[str, Ranks] = {}
        for place, floor in enumerate(self.floors):
            name = cast("Component", floor).use
            if name in by_name:
                raise UserError(f"the floor '{name}' is named twice; a table could not tell its two rows apart")

            def report(tick: Tick, before: int = place) -> None:
                context.report(Tick(before * tick.total + tick.done, len(self.floors) * tick.total, tick.unit))

            by_name[name] = rank_targets(
                floor.fit(corpus),
                holdout.histories,
                holdout.users,
                holdout.targets,
                holdout.candidates,
                popularity=corpus.popularity,
                top=self.top,
                report=report,
            )
        return Floors(by_name)
