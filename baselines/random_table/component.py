"""Random item vectors: a control."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Vectors
from reaemb_bench.core.component import Context, Randomness, Step


class RandomVectors(Step):
    """Draw every item's vector from N(0, 1): the value of a frozen table that only tells items apart."""

    randomness: ClassVar[Randomness] = "embedder"

    dimensions: int = Field(default=256, ge=1)
    """Width of the vectors."""

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, dimensions) from the step's seed; no text is read."""
        values = np.random.default_rng(context.seed).standard_normal((corpus.items, self.dimensions), dtype=np.float32)
        return Vectors(values)
