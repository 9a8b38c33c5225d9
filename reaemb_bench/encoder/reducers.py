"""PCA and whitening of item vectors, fit on all items, in float64 and with deterministic signs.

Vectors are read block by block, twice: for mean and covariance, then to be projected. Memory holds a block and
two matrices (width, width).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Float32, Float64, Vectors
from reaemb_bench.core.component import Component, Foreseen, Step
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.encoder.kinds import AnyReducer


class PCA(Component):
    """Centred projection onto the directions of highest variance; not whitened (the paper's choice)."""

    dimensions: int = Field(default=512, ge=1)
    """Directions kept; at most the width of the vectors."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions). Raises UserError if dimensions exceeds the width."""
        mean, axes, _ = principal_axes(vectors, self.dimensions)
        return _projected(vectors, mean, axes)


class Whitening(Component):
    """PCA whose outputs all have variance 1 (WhitenRec, arXiv 2402.10602, with PCA's axes)."""

    dimensions: int = Field(default=512, ge=1)
    """Directions kept; at most the width of the vectors."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Directions whose variance is below this share of the largest come out as zeros, not as amplified noise."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions). Raises UserError if dimensions exceeds the width."""
        mean, axes, variances = principal_axes(vectors, self.dimensions)
        kept = variances > self.epsilon * variances.max(initial=0.0)
        scales = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1.0)), 0.0)
        return _projected(vectors, mean, axes, scales)


class Unreduced(Component):
    """The vectors as they are."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """The same vectors."""
        return vectors


def principal_axes(vectors: Vectors, dimensions: int) -> tuple[Float64, Float64, Float64]:
    """Mean (width,), principal axes (dimensions, width) and their variances (dimensions,).

    The entry of largest magnitude of each axis is positive. Raises UserError if dimensions exceeds the width.
    """
    if dimensions > vectors.width:
        raise UserError(f"reducer.dimensions = {_too_wide(dimensions, vectors.width)}")
    mean, covariance = _moments(vectors)
    variances, columns = np.linalg.eigh(covariance)
    # eigh sorts upwards.
    axes = columns.T[::-1][:dimensions]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1))
    return mean, axes * np.where(signs == 0, 1, signs), np.maximum(variances[::-1][:dimensions], 0)


def _too_wide(dimensions: int, width: int) -> str:
    return f"{dimensions}, but item vectors have width {width}; set it to at most that"


def _moments(vectors: Vectors) -> tuple[Float64, Float64]:
    """Mean (width,) and covariance (width, width), merged block by block.

    Each block is centred on its own mean, so that nothing large cancels. Source: Chan, Golub and LeVeque (1983),
    "Algorithms for Computing the Sample Variance".
    """
    count, mean, scatter = 0, np.zeros(vectors.width), np.zeros((vectors.width, vectors.width))
    for rows in vectors.blocks():
        block = rows.astype(np.float64)
        centre = block.mean(axis=0)
        centred, moved, both = block - centre, centre - mean, count + len(block)
        scatter += centred.T @ centred + np.outer(moved, moved) * (count * len(block) / both)
        mean = mean + moved * (len(block) / both)
        count = both
    return mean, scatter / max(1, count - 1)


def _projected(vectors: Vectors, mean: Float64, axes: Float64, scales: Float64 | float = 1.0) -> Vectors:
    def project(rows: Float32) -> Float32:
        return ((rows.astype(np.float64) - mean) @ axes.T * scales).astype(np.float32)

    return vectors.mapped(project)


class Reduce(Step):
    """Map item vectors through a reducer fit on all items' texts; no interaction is read."""

    reducer: AnyReducer = "pca"  # type: ignore[assignment]
    """The map."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """The width that the reducer leaves. Raises RecipeError if it is to keep more than there is."""
        width = given[Vectors].width
        if isinstance(self.reducer, PCA | Whitening):
            if width is not None and self.reducer.dimensions > width:
                raise RecipeError(_too_wide(self.reducer.dimensions, width), ("reducer", "dimensions"))
            return Foreseen(width=self.reducer.dimensions)
        return Foreseen(width=width if isinstance(self.reducer, Unreduced) else None)

    def run(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions)."""
        return self.reducer.reduce(vectors)
