"""A reducer of your own."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from reaemb_bench import Component, Float32, Vectors


class Example(Component):
    """A random projection: say here what yours keeps of the vectors."""

    dimensions: int = Field(default=64, ge=1)
    """Dimensions of the result."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions)."""
        drawn = np.random.default_rng(0).normal(size=(vectors.width, self.dimensions)) / self.dimensions**0.5
        matrix = drawn.astype(np.float32)

        def project(rows: Float32) -> Float32:
            projected: Float32 = rows @ matrix
            return projected

        return vectors.mapped(project)
