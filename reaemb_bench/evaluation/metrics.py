"""Metrics of ranks, with one relevant item per user, and of the recommended lists.

A ranking metric takes `better` and `tied` (users,): how many items score above the target, and how many others score
exactly the same. The target is then at each of the positions `better ... better + tied` with equal probability, and the
metric is the mean over these positions, so a scorer that gives every item the same score gets what chance gets.
Returns float64 (users,) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from reaemb_bench.core.artifacts import Float64, Int32, Int64
from reaemb_bench.evaluation.groups import TAIL, item_groups

Metric = Callable[[Int64, Int64], Float64]
"""From `better` and `tied` (users,) to values (users,)."""
MetricName = Literal["ndcg", "hr", "mrr"]


def hit_rate(better: Int64, tied: Int64, k: int) -> Float64:
    """1 if the target is among the first k, else 0 (HR@k; with one relevant item the same as recall and success).

    Example: `hit_rate(np.array([9, 9]), np.array([0, 1]), 10)` is `[1.0, 0.5]`.
    """
    hits: Float64 = np.clip((k - better) / (tied + 1.0), 0.0, 1.0)
    return hits


def ndcg(better: Int64, tied: Int64, k: int) -> Float64:
    """1 / log2(position + 2) if the target's position, counted from 0, is below k, else 0 (NDCG@k, binary relevance).

    Source: Järvelin and Kekäläinen, TOIS 2002; the ideal ranking of one relevant item has a gain of 1.
    """
    return _mean_gain(better, tied, 1.0 / np.log2(np.arange(k) + 2.0))


def reciprocal_rank(better: Int64, tied: Int64, k: int | None = None) -> Float64:
    """1 / (position + 1), whose mean over users is MRR; 0 from position k on if k is given (MRR@k)."""
    depth = int((better + tied).max(initial=0)) + 1 if k is None else k
    return _mean_gain(better, tied, 1.0 / np.arange(1, depth + 1, dtype=np.float64))


def _mean_gain(better: Int64, tied: Int64, gains: Float64) -> Float64:
    """Mean of `gains` (k,) over the positions better ... better + tied; positions from k on gain nothing."""
    below = np.concatenate([[0.0], np.cumsum(gains)])
    first = np.minimum(better, len(gains))
    last = np.minimum(better + tied + 1, len(gains))
    mean: Float64 = (below[last] - below[first]) / (tied + 1.0)
    return mean


def metric_function(name: MetricName, k: int) -> Metric:
    """The metric with its cut-off; MRR has none."""
    if name == "mrr":
        return reciprocal_rank
    return partial(ndcg if name == "ndcg" else hit_rate, k=k)


def metric_heading(name: MetricName, k: int) -> str:
    """The metric's name in tables: `NDCG@10`, `HR@10`, `MRR`."""
    return "MRR" if name == "mrr" else f"{name.upper()}@{k}"


def list_metrics(recommended: Int32, popularity: Int64, tail: int = TAIL) -> dict[str, float]:
    """coverage, gini, popularity, tail_share and cold_share of recommended lists; empty if no item is listed.

    recommended: (users, k) item numbers, -1 where a list is shorter than k. popularity: (items,) training interactions.
    coverage: share of the catalogue that is in at least one list (Herlocker et al., TOIS 2004). gini: see `gini`.
    popularity: mean training interactions of an item of a list, averaged over lists (ARP; Yin et al., VLDB 2012).
    tail_share, cold_share: share of an average list that are items with 1 to `tail` - 1, or no, training interactions
    (APLT; Abdollahpouri et al., FLAIRS 2019).
    """
    lists = recommended[(recommended >= 0).any(axis=1)] if recommended.size else recommended[:0]
    if not len(lists):
        return {}
    listed = lists >= 0
    share = listed / np.count_nonzero(listed, axis=1)[:, None] / len(lists)
    exposure = np.bincount(lists[listed], minlength=len(popularity)).astype(np.int64)
    weight = np.bincount(lists[listed], weights=share[listed], minlength=len(popularity))
    groups = item_groups(popularity, tail)
    return {
        "coverage": int(np.count_nonzero(exposure)) / len(popularity),
        "gini": gini(exposure),
        "popularity": float(weight @ popularity),
        "tail_share": float(weight[groups["tail"]].sum()),
        "cold_share": float(weight[groups["cold"]].sum()),
    }


def gini(exposure: Int64) -> float:
    """Gini index of how often each item of the catalogue is listed (items,): 0 if all are equally often.

    It is the mean absolute difference between two items' exposures over twice their mean; 1 - 1 / items if a single
    item is listed. Raises ZeroDivisionError if none is.
    """
    items = len(exposure)
    ordered = np.sort(exposure)
    return int((2 * np.arange(1, items + 1) - items - 1) @ ordered) / (items * int(ordered.sum()))
