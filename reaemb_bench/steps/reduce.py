"""Reduce item vectors to the width that a recommender reads."""

from __future__ import annotations

from reaemb_bench.artifacts import Vectors
from reaemb_bench.component import Step
from reaemb_bench.kinds import AnyReducer


class Reduce(Step):
    """Map item vectors through a reducer fit on all items' texts; no interaction is read."""

    reducer: AnyReducer = "pca"  # type: ignore[assignment]
    """The map."""

    def run(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions)."""
        return self.reducer.reduce(vectors)
