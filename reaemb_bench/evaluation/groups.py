"""Groups of users by how often their target and how much of their history was seen, counted in training alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.artifacts import Int64

TAIL = 20
SHORT = 10
BINS = 5

Mask = npt.NDArray[np.bool_]


def of_items(popularity: Int64, tail: int = TAIL) -> dict[str, Mask]:
    """Which items (n,) are cold, tail and head, by their training interactions: none, fewer than `tail`, or more."""
    cold = popularity == 0
    return {"tail": ~cold & (popularity < tail), "head": ~cold & (popularity >= tail), "cold": cold}


def groups(popularity: Int64, history: Int64, tail: int = TAIL, short: int = SHORT) -> dict[str, Mask]:
    """Which users (n,) belong to each group.

    popularity: training interactions of each user's target. history: items in each user's history. `cold` targets
    have no training interaction, `tail` ones fewer than `tail`, `head` ones more: these three share out all users.
    So do `short` histories, of fewer than `short` items, and `long` ones.
    """
    return {**of_items(popularity, tail), "short": history < short, "long": history >= short}


@dataclass(frozen=True)
class Bin:
    """One bin of a curve: which users (n,) are in it, and the least and the greatest value among them."""

    members: Mask
    low: int
    high: int


def quantile_bins(popularity: Int64, history: Int64, count: int = BINS) -> dict[str, Bin]:
    """`count` bins of about equal size by the popularity of the target, and as many by the length of the history.

    They are named `popularity-q1`, with the least popular targets, ... and `history-q1`, with the shortest histories,
    ... Cold targets are in no bin by popularity: they are a group of their own. Users of equal value share a bin, so
    where a value is frequent the bins differ in size; empty ones are left out.
    """
    everybody = np.ones(len(history), dtype=np.bool_)
    made = {}
    for name, values, among in (("popularity", popularity, popularity > 0), ("history", history, everybody)):
        places = np.full(len(values), -1, dtype=np.int64)
        places[among] = quantile_groups(values[among], count)
        for place in np.unique(places[among]).tolist():
            members = places == place
            inside = values[members]
            made[f"{name}-q{place + 1}"] = Bin(members, int(inside.min()), int(inside.max()))
    return made


def quantile_groups(values: Int64, count: int) -> Int64:
    """Numbers 0 ... count - 1 (n,) of groups of about equal size, by rising value.

    Equal values share a group, so where one value is frequent the groups differ in size and some may be empty.
    """
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left").astype(np.int64)
    return below * count // max(len(values), 1)
