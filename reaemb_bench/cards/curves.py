"""The two curves of a card: how interactions share out over items, and how long users' sequences are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reaemb_bench.artifacts import Int64

_FIRST = (0, 1, 2, 3, 5, 7)
_THEN = (10, 15, 20, 30, 50, 70)


def long_tail(popularity: Int64) -> tuple[float, ...]:
    """Share of all interactions that the most popular 0, 1, ..., 100 % of the items hold: 101 rising numbers.

    popularity: (items,) interactions of each item; all 0 where there is no interaction.
    """
    ordered = np.sort(popularity)[::-1]
    held = np.concatenate([[0], np.cumsum(ordered)]) / max(int(ordered.sum()), 1)
    at = np.interp(np.linspace(0, len(ordered), 101), np.arange(len(ordered) + 1), held)
    return tuple(at.tolist())


@dataclass(frozen=True)
class Bin:
    """How many users have `low` to `high` interactions, both included."""

    low: int
    high: int
    users: int

    @property
    def words(self) -> str:
        """`4` or `10-14`."""
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,}-{self.high:,}"


def length_bins(lengths: Int64) -> tuple[Bin, ...]:
    """Users by the length (users,) of their sequences, from the bin of the shortest to that of the longest.

    Bins begin at 0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, ..., so that they grow with the length and are the
    same for every data set.
    """
    digits = len(str(lengths.max(initial=0)))
    starts = [*_FIRST, *(start * 10**power for power in range(digits) for start in _THEN)]
    counts, _ = np.histogram(lengths, bins=starts)
    inside = np.flatnonzero(counts)
    if not len(inside):
        return ()
    return tuple(
        Bin(starts[place], starts[place + 1] - 1, int(counts[place])) for place in range(inside[0], inside[-1] + 1)
    )
