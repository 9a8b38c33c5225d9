"""Means of the metrics over users and groups of users, and their spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from reaemb_bench.core.artifacts import Float64, Int64, Ranks
from reaemb_bench.evaluation.groups import BINS, SHORT, TAIL, groups, quantile_bins
from reaemb_bench.evaluation.lists import measures
from reaemb_bench.evaluation.metrics import hit_rate, ndcg, reciprocal_rank
from reaemb_bench.evaluation.significance import Metric


def summarise(
    ranks: Ranks, ks: Sequence[int] = (5, 10, 20), tail: int = TAIL, short: int = SHORT, bins: int = BINS
) -> dict[str, float]:
    """Flat names and means: `full/ndcg@10`, `full/ndcg@10/tail`, `sampled/hr@10`, `full/mrr/cold`, `users/tail`, ...

    full: against the whole catalogue. sampled: against the stored candidates, of the users who have any. hr is the hit
    rate, which with one target a user is recall too; mrr has no cut-off. The groups are tail, head, cold, short and
    long, and for curves of `full` `bins` quantile bins by the popularity of the target, `popularity-q1` (the least
    popular) ... `popularity-q5`, and by the length of the history, `history-q1` ... `history-q5`: see
    `reaemb_bench.evaluation.groups`. `users` counts all users, `users/GROUP` each group's; `low/BIN` and `high/BIN` are
    the least and the greatest value in a bin.
    Where lists were kept, `full/coverage@10`, `full/gini@10`, `full/popularity@10`, `full/tail_share@10` and
    `full/cold_share@10` describe them, for each k up to their length: see `reaemb_bench.evaluation.lists`.
    A metric of a group without users is absent, never 0; so is all of `sampled` where no candidates are stored.
    """
    inside = groups(ranks.popularity, ranks.history, tail, short)
    by_bin = quantile_bins(ranks.popularity, ranks.history, bins)
    curves = {name: each.members for name, each in by_bin.items()}
    summary = {"users": float(len(ranks.users))}
    summary |= {f"users/{name}": float(members.sum()) for name, members in {**inside, **curves}.items()}
    summary |= {f"low/{name}": float(each.low) for name, each in by_bin.items()}
    summary |= {f"high/{name}": float(each.high) for name, each in by_bin.items()}
    everybody = np.ones(len(ranks.users), dtype=np.bool_)
    sampled = ranks.sampled_better >= 0
    protocols = {
        "full": (everybody, ranks.better, ranks.tied, {"": everybody, **inside, **curves}),
        "sampled": (sampled, np.maximum(ranks.sampled_better, 0), ranks.sampled_tied, {"": everybody, **inside}),
    }
    for protocol, (judged, better, tied, parts) in protocols.items():
        for metric, values in _by_metric(better, tied, ks).items():
            for name, members in parts.items():
                chosen = values[members & judged]
                if len(chosen):
                    summary["/".join(filter(None, (protocol, metric, name)))] = float(chosen.mean())
    return {**summary, **_of_lists(ranks, ks, tail)}


def _by_metric(better: Int64, tied: Int64, ks: Sequence[int]) -> dict[str, Float64]:
    values = {f"hr@{k}": hit_rate(better, tied, k) for k in ks}
    values |= {f"ndcg@{k}": ndcg(better, tied, k) for k in ks}
    return {**values, "mrr": reciprocal_rank(better, tied)}


def _of_lists(ranks: Ranks, ks: Sequence[int], tail: int) -> dict[str, float]:
    return {
        f"full/{name}@{k}": value
        for k in ks
        if k <= ranks.recommended.shape[1]
        for name, value in measures(ranks.recommended[:, :k], ranks.item_popularity, tail).items()
    }


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, and the sample standard deviation: None where there is one seed only."""

    mean: float
    sd: float | None


def over_seeds(summaries: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Spread of every value that all summaries have; one summary a seed."""
    shared = [name for name in summaries[0] if all(name in each for each in summaries)]
    spread = {}
    for name in shared:
        values = [each[name] for each in summaries]
        spread[name] = Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
    return spread


# Metrics by the names that people give them on the command line.


MetricName = Literal["ndcg", "hr", "mrr"]


def metric_named(name: MetricName, k: int) -> Metric:
    """The metric with its cut-off; MRR has none."""
    if name == "mrr":
        return reciprocal_rank
    return partial(ndcg if name == "ndcg" else hit_rate, k=k)


def heading_of(name: MetricName, k: int) -> str:
    """As tables call it: `NDCG@10`, `HR@10`, `MRR`."""
    return "MRR" if name == "mrr" else f"{name.upper()}@{k}"
