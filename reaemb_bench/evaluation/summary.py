"""Means of the metrics over users and groups of users, and their spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reaemb_bench.artifacts import Float64, Int64, Ranks
from reaemb_bench.evaluation.groups import SHORT, TAIL, groups
from reaemb_bench.evaluation.metrics import hit_rate, ndcg, reciprocal_rank


def summarise(ranks: Ranks, ks: Sequence[int] = (5, 10, 20), tail: int = TAIL, short: int = SHORT) -> dict[str, float]:
    """Flat names and means: `full/ndcg@10`, `full/ndcg@10/tail`, `sampled/hr@10`, `full/mrr/cold`, `users/tail`, ...

    full: against the whole catalogue. sampled: against the stored candidates, of the users who have any. mrr has no
    cut-off. The groups are tail, head, cold, short and long; `users` counts all users and `users/GROUP` each group's.
    A metric of a group without users is absent, never 0; so is all of `sampled` where no candidates are stored.
    """
    inside = groups(ranks.popularity, ranks.history, tail, short)
    summary = {"users": float(len(ranks.users))}
    summary |= {f"users/{name}": float(members.sum()) for name, members in inside.items()}
    everybody = np.ones(len(ranks.users), dtype=np.bool_)
    sampled = ranks.sampled_better >= 0
    protocols = {
        "full": (everybody, ranks.better, ranks.tied),
        "sampled": (sampled, np.maximum(ranks.sampled_better, 0), ranks.sampled_tied),
    }
    for protocol, (judged, better, tied) in protocols.items():
        for metric, values in _by_metric(better, tied, ks).items():
            for name, members in {"": everybody, **inside}.items():
                chosen = values[members & judged]
                if len(chosen):
                    summary["/".join(filter(None, (protocol, metric, name)))] = float(chosen.mean())
    return summary


def _by_metric(better: Int64, tied: Int64, ks: Sequence[int]) -> dict[str, Float64]:
    values = {f"hr@{k}": hit_rate(better, tied, k) for k in ks}
    values |= {f"ndcg@{k}": ndcg(better, tied, k) for k in ks}
    return {**values, "mrr": reciprocal_rank(better, tied)}


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
