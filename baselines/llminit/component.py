"""LLMInit (arXiv 2503.01814): some dimensions of a vector, selected and not mixed."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Float32, Vectors
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError


class SelectedDimensions(Component):
    """Some dimensions of the vectors, unchanged."""

    choice: Literal["variance", "uniform", "random"] = "variance"
    """The dimensions of highest variance over the items, evenly spaced ones, or random ones."""
    dimensions: int = Field(default=128, ge=1)
    """How many; at most the width of the vectors."""
    seed: int = 0
    """Seed of `random`, independent of the recipe's seeds."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions), in their old order. Raises UserError if dimensions is too high."""
        if self.dimensions > vectors.width:
            raise UserError(
                f"reducer.dimensions = {self.dimensions}, but item vectors have width {vectors.width}; lower it"
            )
        if self.choice == "variance":
            variances = vectors.values.var(axis=0, dtype=np.float64)
            selected = np.argsort(-variances, kind="stable")[: self.dimensions]
        elif self.choice == "uniform":
            selected = np.arange(self.dimensions) * vectors.width // self.dimensions
        else:
            selected = np.random.default_rng(self.seed).choice(vectors.width, self.dimensions, replace=False)
        columns = np.sort(selected)

        def select(rows: Float32) -> Float32:
            return rows[:, columns]

        return vectors.mapped(select)
