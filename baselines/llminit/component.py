"""LLMInit (arXiv 2503.01814): some dimensions of a vector, selected and not mixed."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Float32, Vectors
from reaemb_bench.core.component import Step
from reaemb_bench.core.errors import UserError


class SelectDimensions(Step):
    """Some dimensions of the vectors, unchanged."""

    choice: Literal["variance", "uniform", "random"] = "variance"
    """The dimensions of highest variance over popular items, evenly spaced ones, or random ones."""
    popular: float = Field(default=0.2, gt=0, le=1)
    """Share of all items, those with the most training interactions, over which the variance is taken."""
    dimensions: int = Field(default=128, ge=1)
    """How many; at most the width of the vectors."""
    seed: int = 0
    """Seed of `random`, independent of the recipe's seeds."""

    def run(self, corpus: Corpus, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions), in their old order. Raises UserError if dimensions is too high."""
        if self.dimensions > vectors.width:
            raise UserError(f"dimensions = {self.dimensions}, but item vectors have width {vectors.width}; lower it")
        if self.choice == "variance":
            count = max(2, math.floor(self.popular * corpus.items))
            items = np.argsort(-corpus.popularity, kind="stable")[:count]
            variances = vectors.values[items].var(axis=0, dtype=np.float64)
            selected = np.argsort(-variances, kind="stable")[: self.dimensions]
        elif self.choice == "uniform":
            selected = np.arange(0, vectors.width, vectors.width // self.dimensions)[: self.dimensions]
        else:
            selected = np.random.default_rng(self.seed).choice(vectors.width, self.dimensions, replace=False)
        columns = np.sort(selected)

        def select(rows: Float32) -> Float32:
            return rows[:, columns]

        return vectors.mapped(select)
