"""Whether results may be in one table, and signs in the ranks themselves that a result means little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.evaluation.metrics import ndcg

SAMPLE = "candidates"
_PARTS = {
    "users or targets": ("users", "targets"),
    "training data": ("popularity", "item_popularity"),
    "histories": ("history", "history_hash"),
    "catalogue": ("catalogue",),
    SAMPLE: ("sample_hash",),
}
"""All that the numbers of a result depend on, except the method -> the fields of its ranks that tell."""
_MAY_BE_EMPTY = ("item_popularity", "history_hash", "sample_hash")


def protocol_differences(first: Ranks, other: Ranks) -> tuple[str, ...]:
    """What two results do not share: `users or targets`, `training data`, `histories`, `catalogue`, `candidates`.

    Empty if they are comparable. `candidates` alone (SAMPLE) leaves the metrics of the whole catalogue comparable.
    Results that an earlier version stored have no hashes of histories and candidates; these are then not compared.
    """

    def differs(field: str) -> bool:
        one, two = getattr(first, field), getattr(other, field)
        unknown = field in _MAY_BE_EMPTY and not (len(one) and len(two))
        return not unknown and not np.array_equal(one, two)

    return tuple(part for part, fields in _PARTS.items() if any(map(differs, fields)))


def check_comparable(named: Mapping[str, Sequence[Ranks]]) -> frozenset[str]:
    """The names whose candidate sample is not the first one, so that no table may hold their sampled metrics.

    named: the ranks of each method's seeds. Raises UserError if anything else differs between methods or seeds.
    """
    everything = [(name, ranks) for name, seeds in named.items() for ranks in seeds]
    sampled = next((ranks for _, ranks in everything if (ranks.sampled_better >= 0).any()), None)
    other_sample = set()
    for name, ranks in everything[1:]:
        first_name, first = everything[0]
        differing = protocol_differences(first, ranks)
        if set(differing) - {SAMPLE}:
            between = f"{first_name} and {name}" if name != first_name else f"the seeds of {name}"
            raise UserError(
                f"{between} have different {' and '.join(differing)}, so no table can hold both; "
                "run them on the same data with the same split"
            )
        if sampled is not None and SAMPLE in protocol_differences(sampled, ranks):
            other_sample.add(name)
    return frozenset(other_sample)


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
