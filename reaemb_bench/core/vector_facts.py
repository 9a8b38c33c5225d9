"""How far item vectors differ from each other: facts that stand in the manifest of every step that makes vectors."""

from __future__ import annotations

import numpy as np

from reaemb_bench.core.artifacts import Float64, Vectors
from reaemb_bench.core.errors import check_rows

SAMPLE = 2_048
"""Most vectors that are measured: every n-th item's, so that the same vectors always give the same facts."""


def vector_facts(vectors: Vectors) -> dict[str, float]:
    """How far vectors (items, width) differ, by a sample of them.

    mean_cosine: of all pairs of different items. effective_dimensions: the participation ratio of the centred
    vectors, (sum of variances)^2 / sum of variances^2 over the principal axes, from 1 (a line) to the width; 0 where
    all are equal. Raises NotFiniteError where a vector, inside or outside of the sample, is not finite.
    """
    step, first, kept = max(1, -(-vectors.items // SAMPLE)), 0, []
    for block in vectors.blocks():
        check_rows("vector", block, first, cure="train what made them with a lower learning rate, or in float32")
        kept.append(block[-first % step :: step].astype(np.float64))
        first += len(block)
    sample = np.concatenate(kept)
    return {
        "mean_cosine": _mean_cosine(sample),
        "effective_dimensions": _effective_dimensions(sample),
        "width": sample.shape[1],
    }


def _mean_cosine(vectors: Float64) -> float:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(norms > 0, norms, 1)
    total = np.square(units.sum(axis=0)).sum() - np.square(units).sum()
    return float(total / max(1, len(units) * (len(units) - 1)))


def _effective_dimensions(vectors: Float64) -> float:
    centred = vectors - vectors.mean(axis=0)
    # Neither trace nor norm needs the axes themselves.
    scatter = centred.T @ centred if centred.shape[1] < len(centred) else centred @ centred.T
    squares = float(np.square(scatter).sum())
    return float(np.trace(scatter)) ** 2 / squares if squares > 0 else 0.0
