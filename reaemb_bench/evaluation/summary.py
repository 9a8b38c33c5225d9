"""Means of the metrics over users and groups of users, and their spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.evaluation.groups import BINS, SHORT, TAIL, quantile_bins, user_groups
from reaemb_bench.evaluation.metrics import hit_rate, list_metrics, ndcg, reciprocal_rank


def summarise(
    ranks: Ranks, ks: Sequence[int] = (5, 10, 20), tail: int = TAIL, short: int = SHORT, bins: int = BINS
) -> dict[str, float]:
    """Means by name: `full/ndcg@10`, `full/ndcg@10/tail`, `sampled/hr@10`, `full/mrr/cold`, `users/tail`, ...

    full: against the whole catalogue. sampled: against the stored candidates, of the users who have any. hr is the hit
    rate, which with one target per user is recall too; mrr has no cut-off. Groups are those of `user_groups` and, for
    `full` alone, `quantile_bins`. `users` counts all users, `users/GROUP` each group's; `low/BIN` and `high/BIN` are
    the lowest and highest value in a bin. If lists were kept, `full/coverage@10` and the other `list_metrics` describe
    them, for each k up to their length. A metric of a group without users is absent, never 0; so is all of `sampled`
    if no candidates are stored.
    """
    groups = user_groups(ranks.popularity, ranks.history, tail, short)
    by_bin = quantile_bins(ranks.popularity, ranks.history, bins)
    curves = {name: part.members for name, part in by_bin.items()}
    summary = {"users": float(len(ranks.users))}
    summary |= {f"users/{name}": float(members.sum()) for name, members in {**groups, **curves}.items()}
    summary |= {f"low/{name}": float(part.low) for name, part in by_bin.items()}
    summary |= {f"high/{name}": float(part.high) for name, part in by_bin.items()}

    everyone = np.ones(len(ranks.users), dtype=np.bool_)
    with_sample = ranks.sampled_better >= 0
    protocols = (
        ("full", everyone, ranks.better, ranks.tied, {"": everyone, **groups, **curves}),
        ("sampled", with_sample, np.maximum(ranks.sampled_better, 0), ranks.sampled_tied, {"": everyone, **groups}),
    )
    for protocol, ranked, better, tied, parts in protocols:
        metrics = {f"hr@{k}": hit_rate(better, tied, k) for k in ks}
        metrics |= {f"ndcg@{k}": ndcg(better, tied, k) for k in ks}
        metrics["mrr"] = reciprocal_rank(better, tied)
        for metric, values in metrics.items():
            for group, members in parts.items():
                chosen = values[members & ranked]
                if len(chosen):
                    summary["/".join(filter(None, (protocol, metric, group)))] = float(chosen.mean())

    for k in (k for k in ks if k <= ranks.recommended.shape[1]):
        of_lists = list_metrics(ranks.recommended[:, :k], ranks.item_popularity, tail)
        summary |= {f"full/{name}@{k}": value for name, value in of_lists.items()}
    return summary


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, and the sample standard deviation: None if there is one seed only."""

    mean: float
    sd: float | None


def over_seeds(summaries: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Spread of every value that all summaries have; one summary per seed."""
    spread = {}
    for name in summaries[0]:
        values = [summary[name] for summary in summaries if name in summary]
        if len(values) == len(summaries):
            spread[name] = Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
    return spread
