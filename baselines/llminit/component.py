"""Some of a vector's numbers, taken as they are."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Float32, Int64, Vectors
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError


class SelectedDimensions(Component):
    """Dimensions of the vectors, selected and not mixed (LLMInit, arXiv 2503.01814)."""

    choice: Literal["variance", "uniform", "random"] = "variance"
    """Those of highest variance over the items, evenly spaced ones, or ones drawn without replacement."""
    dimensions: int = Field(default=128, ge=1)
    """How many; at most the width of the vectors."""
    seed: int = 0
    """Decides what `random` draws, whatever the recipe's seeds are."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions), in their old order. Raises UserError where dimensions is too high."""
        if self.dimensions > vectors.width:
            raise UserError(
                f"reducer.dimensions = {self.dimensions}, but item vectors have width {vectors.width}; lower it"
            )
        kept = np.sort(self._selected(vectors))

        def select(rows: Float32) -> Float32:
            return rows[:, kept]

        return vectors.mapped(select)

    def _selected(self, vectors: Vectors) -> Int64:
        if self.choice == "variance":
            variances = vectors.values.var(axis=0, dtype=np.float64)
            return np.argsort(-variances, kind="stable")[: self.dimensions]
        if self.choice == "uniform":
            return np.arange(self.dimensions) * vectors.width // self.dimensions
        return np.random.default_rng(self.seed).choice(vectors.width, self.dimensions, replace=False)
