"""What things are called in MLflow: experiments, parameters, metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

EXPERIMENT = "reaemb-bench"
"""Experiment of runs without data, and the first part of all other experiments' names."""

HEADLINE = "full/ndcg@10"
"""The metric that comes first."""

_BINS = re.compile(r"(low|high)/|.*-q\d+$")


def experiment_name(data: str) -> str:
    """The experiment of all runs on one data set, such as `reaemb-bench/MovieLens-100K`."""
    return f"{EXPERIMENT}/{data}" if data else EXPERIMENT


def clean(name: str) -> str:
    """The name in the characters that MLflow takes: `ndcg@10` becomes `ndcg_at_10`."""
    return re.sub(r"[^/\w.\- ]", "_", name.replace("@", "_at_"))


def shown_metrics(summary: Mapping[str, float]) -> dict[str, float]:
    """What is logged of a summary: `test/full/ndcg@10/tail`, ... without the many quantile bins of curves.

    MLflow shows metrics in the order in which they come, so the headline is first and counts of users are last.
    """
    ordered = sorted(summary, key=lambda name: (name.startswith("users"), name != HEADLINE))
    return {f"test/{name}": summary[name] for name in ordered if not _BINS.match(name)}


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables and lists as `a.b.0.c` -> value."""
    if isinstance(value, Mapping):
        pairs: list[tuple[str, Any]] = [(str(name), each) for name, each in value.items()]
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        pairs = [(str(place), each) for place, each in enumerate(value)]
    else:
        return {prefix: value}
    made: dict[str, Any] = {}
    for name, each in pairs:
        made |= flatten(each, f"{prefix}.{name}" if prefix else name)
    return made
