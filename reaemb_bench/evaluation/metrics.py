"""Ranking metrics of one relevant item a user, with ties broken by expectation.

Every metric takes `better` and `tied` (users,): how many items score above the target, and how many others score
exactly the same. The target then stands at each of the places `better ... better + tied` with equal probability, and
a metric is its mean over these places, as if ties were broken at random infinitely often. A scorer that gives every
item the same score therefore gets what chance gets. All results are float64 (users,), in [0, 1].
"""

from __future__ import annotations

import numpy as np

from reaemb_bench.core.artifacts import Float64, Int64


def hit_rate(better: Int64, tied: Int64, k: int) -> Float64:
    """1 where the target is among the first k, else 0 (HR@k; with one relevant item the same as recall and success).

    Example: `hit_rate(np.array([9, 9]), np.array([0, 1]), 10)` is `[1.0, 0.5]`.
    """
    hits: Float64 = np.clip((k - better) / (tied + 1.0), 0.0, 1.0)
    return hits


def ndcg(better: Int64, tied: Int64, k: int) -> Float64:
    """1 / log2(place + 2) where the target's place, from 0, is below k, else 0 (NDCG@k with binary relevance).

    Source: Järvelin and Kekäläinen, TOIS 2002; the ideal ranking of one relevant item has a gain of 1.
    """
    gains: Float64 = 1.0 / np.log2(np.arange(k) + 2.0)
    return _mean_gain(better, tied, gains)


def reciprocal_rank(better: Int64, tied: Int64, k: int | None = None) -> Float64:
    """1 / (place + 1), its mean over users being MRR; 0 from place k on where k is given (MRR@k)."""
    depth = int((better + tied).max(initial=0)) + 1 if k is None else k
    return _mean_gain(better, tied, 1.0 / np.arange(1, depth + 1, dtype=np.float64))


def _mean_gain(better: Int64, tied: Int64, gains: Float64) -> Float64:
    """Mean of `gains` (k,) over the places better ... better + tied; places from k on gain nothing."""
    below = np.concatenate([[0.0], np.cumsum(gains)])
    first = np.minimum(better, len(gains))
    last = np.minimum(better + tied + 1, len(gains))
    mean: Float64 = (below[last] - below[first]) / (tied + 1.0)
    return mean
