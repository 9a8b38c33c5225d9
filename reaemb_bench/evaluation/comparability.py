"""Whether results may be in one table: all that their numbers depend on, except the method, must be the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.errors import UserError

SAMPLE = "candidates"


def protocol_differences(first: Ranks, other: Ranks) -> tuple[str, ...]:
    """What two results do not share: `users or targets`, `training data`, `histories`, `catalogue`, `candidates`.

    Empty if they are comparable. `candidates` alone (SAMPLE) leaves the metrics of the whole catalogue comparable.
    Results that an earlier version stored have no hashes of histories and candidates; these are then not compared.
    """
    parts = {
        "users or targets": ("users", "targets"),
        "training data": ("popularity", "item_popularity"),
        "histories": ("history", "history_hash"),
        "catalogue": ("catalogue",),
        SAMPLE: ("sample_hash",),
    }
    hashes = ("item_popularity", "history_hash", "sample_hash")

    def differs(field: str) -> bool:
        one, two = getattr(first, field), getattr(other, field)
        unknown = field in hashes and not (len(one) and len(two))
        return not unknown and not np.array_equal(one, two)

    return tuple(part for part, fields in parts.items() if any(differs(field) for field in fields))


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
