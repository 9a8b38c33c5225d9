"""Signs in the ranks themselves that a result means little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.evaluation.metrics import ndcg


def equal_scores(ranks: Ranks) -> int:
    """The number of users for whom all items of the catalogue have the same score, for any reason."""
    return int(np.count_nonzero((ranks.tied == ranks.catalogue - 1) & (ranks.catalogue > 1)))


def rank_signs(name: str, seeds: Sequence[Ranks], k: int = 10) -> Iterator[str]:
    """One line for each sign in the ranks of a method's seeds: users with equal scores, a metric that is constant."""
    users = len(seeds[0].users)
    if most := max(equal_scores(ranks) for ranks in seeds):
        which = "" if len(seeds) == 1 else f" (of {len(seeds)} seeds the worst)"
        yield (
            f"{most:,} of {users:,} users of {name} have all scores equal{which}, so their targets rank at chance: "
            "look for vectors that are all equal, too large or zero, and for empty histories"
        )
    values = np.concatenate([ndcg(ranks.better, ranks.tied, k) for ranks in seeds])
    if users > 1 and (values == values[0]).all():
        yield f"NDCG@{k} of {name} is the same for all {users:,} users ({values[0]:.4f}), so no test can use it"
