"""PCA and whitening of item vectors, fit on all items, in float64 and with deterministic signs."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from reaemb_bench.artifacts import Float64, Vectors
from reaemb_bench.component import Component
from reaemb_bench.errors import UserError


class PCA(Component):
    """Centred projection onto the directions of highest variance; not whitened (the paper's choice)."""

    dimensions: int = Field(default=512, ge=1)
    """Directions kept; at most the width of the vectors."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions). Raises UserError where dimensions exceeds the width."""
        centred, axes, _ = principal_axes(vectors, self.dimensions)
        return Vectors((centred @ axes.T).astype(np.float32))


class Whitening(Component):
    """PCA whose outputs all have variance 1 (WhitenRec, arXiv 2402.10602, with PCA's axes)."""

    dimensions: int = Field(default=512, ge=1)
    """Directions kept; at most the width of the vectors."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Directions whose variance is below this share of the largest come out as zeros, not as amplified noise."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions). Raises UserError where dimensions exceeds the width."""
        centred, axes, variances = principal_axes(vectors, self.dimensions)
        kept = variances > self.epsilon * variances.max(initial=0.0)
        scales = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1.0)), 0.0)
        return Vectors((centred @ axes.T * scales).astype(np.float32))


class Unreduced(Component):
    """The vectors as they are."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """The same vectors."""
        return vectors


def principal_axes(vectors: Vectors, dimensions: int) -> tuple[Float64, Float64, Float64]:
    """Centred vectors (items, width), principal axes (dimensions, width) and their variances (dimensions,).

    The entry of largest magnitude of each axis is positive. Raises UserError where dimensions exceeds the width.
    """
    if dimensions > vectors.width:
        raise UserError(
            f"reducer.dimensions = {dimensions}, but item vectors have width {vectors.width}; set it to at most that"
        )
    values = vectors.values.astype(np.float64)
    centred = values - values.mean(axis=0)
    covariance = centred.T @ centred / max(1, len(centred) - 1)
    variances, columns = np.linalg.eigh(covariance)
    # eigh sorts upwards.
    axes = columns.T[::-1][:dimensions]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1))
    return centred, axes * np.where(signs == 0, 1, signs), np.maximum(variances[::-1][:dimensions], 0)
