"""Metrics by the names that people give them on the command line."""

from __future__ import annotations

from functools import partial
from typing import Literal

from reaemb_bench.evaluation.metrics import hit_rate, ndcg, reciprocal_rank
from reaemb_bench.evaluation.significance import Metric

MetricName = Literal["ndcg", "hr", "mrr"]


def metric_named(name: MetricName, k: int) -> Metric:
    """The metric with its cut-off; MRR has none."""
    if name == "mrr":
        return reciprocal_rank
    return partial(ndcg if name == "ndcg" else hit_rate, k=k)


def heading_of(name: MetricName, k: int) -> str:
    """As tables call it: `NDCG@10`, `HR@10`, `MRR`."""
    return "MRR" if name == "mrr" else f"{name.upper()}@{k}"
