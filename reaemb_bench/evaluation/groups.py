"""Groups of users by the popularity of their target and the length of their history, counted in training alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.artifacts import Int64

TAIL = 20
SHORT = 10
BINS = 5

Mask = npt.NDArray[np.bool_]


def item_groups(popularity: Int64, tail: int = TAIL) -> dict[str, Mask]:
    """Masks (n,) of tail, head and cold items: 1 to `tail` - 1 training interactions, `tail` or more, none."""
    cold = popularity == 0
    return {"tail": ~cold & (popularity < tail), "head": ~cold & (popularity >= tail), "cold": cold}


def user_groups(popularity: Int64, history: Int64, tail: int = TAIL, short: int = SHORT) -> dict[str, Mask]:
    """Masks (n,) of the users of each group: tail, head and cold targets; short and long histories.

    popularity: training interactions of each user's target. history: items in each user's history; fewer than `short`
    are short. tail, head and cold share out all users, and so do short and long.
    """
    return {**item_groups(popularity, tail), "short": history < short, "long": history >= short}


@dataclass(frozen=True)
class Bin:
    """One bin of a curve: the mask (n,) of its users, and the lowest and highest value among them."""

    members: Mask
    low: int
    high: int


def quantile_bins(popularity: Int64, history: Int64, count: int = BINS) -> dict[str, Bin]:
    """`count` bins of about equal size by the popularity of the target, and as many by the length of the history.

    Their names are `popularity-q1` (the least popular targets), ... and `history-q1` (the shortest histories), ... Cold
    targets are in no bin by popularity, because they are a group of their own. Users of equal value share a bin, so
    bins differ in size if a value is frequent; empty bins are left out.
    """
    everyone = np.ones(len(history), dtype=np.bool_)
    bins = {}
    for name, values, among in (("popularity", popularity, popularity > 0), ("history", history, everyone)):
        numbers = np.full(len(values), -1, dtype=np.int64)
        numbers[among] = quantile_groups(values[among], count)
        for number in np.unique(numbers[among]).tolist():
            members = numbers == number
            inside = values[members]
            bins[f"{name}-q{number + 1}"] = Bin(members, int(inside.min()), int(inside.max()))
    return bins


def quantile_groups(values: Int64, count: int) -> Int64:
    """Numbers 0 ... count - 1 (n,) of groups of about equal size, by rising value; equal values share a group."""
    below = np.searchsorted(np.sort(values), values, side="left").astype(np.int64)
    return below * count // max(len(values), 1)
