"""Groups of users by how often their target and how much of their history was seen, counted in training alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reaemb_bench.artifacts import Float64, Int64

TAIL = 20
SHORT = 10

Mask = npt.NDArray[np.bool_]


def groups(popularity: Int64, history: Int64, tail: int = TAIL, short: int = SHORT) -> dict[str, Mask]:
    """Which users (n,) belong to each group.

    popularity: training interactions of each user's target. history: items in each user's history. `cold` targets
    have no training interaction, `tail` ones fewer than `tail`, `head` ones more: these three share out all users.
    So do `short` histories, of fewer than `short` items, and `long` ones.
    """
    cold = popularity == 0
    return {
        "tail": ~cold & (popularity < tail),
        "head": ~cold & (popularity >= tail),
        "cold": cold,
        "short": history < short,
        "long": history >= short,
    }


def quantile_groups(values: Int64, count: int) -> Int64:
    """Numbers 0 ... count - 1 (n,) of groups of about equal size, by rising value.

    Equal values share a group, so where one value is frequent the groups differ in size and some may be empty.
    """
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left").astype(np.int64)
    return below * count // max(len(values), 1)


@dataclass(frozen=True)
class Bin:
    """One point of a curve: users whose value lies in [low, high], and the mean of a metric over them."""

    low: int
    high: int
    users: int
    mean: float


def curve(metric: Float64, values: Int64, bins: int = 5) -> tuple[Bin, ...]:
    """Mean of a metric (n,) over quantile groups of `values` (n,), such as popularity; empty groups are left out."""
    place = quantile_groups(values, bins)
    points = []
    for each in np.unique(place):
        inside = place == each
        low, high = int(values[inside].min()), int(values[inside].max())
        points.append(Bin(low, high, int(inside.sum()), float(metric[inside].mean())))
    return tuple(points)
