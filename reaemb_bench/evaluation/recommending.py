"""The lists that a recommender would show: the best items of each user, without a pass of sorting."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from reaemb_bench.artifacts import Float32, Int32, Int64, Sequences
from reaemb_bench.evaluation.counting import CELLS
from reaemb_bench.evaluation.scramble import UInt32, mix32, mix64

NOBODY = -1
"""Fills the lists of users for whom fewer items are left than a list is long."""

_CROWD = 4


def best_items(scores: Float32, excluded: Sequences, users: Int64, top: int) -> Int32:
    """The `top` items with the highest scores of each row, best first: (rows, top), `NOBODY` where no item is left.

    scores: (rows, items), finite. excluded: items that may not stand in a row's list, one sequence a row. users:
    (rows,) numbers of the users. Equal scores stand in the order of a hash of user and item: as if drawn at random,
    whatever the items' numbers are, and for each user the same at every length of the list and whoever else is ranked.
    """
    rows, items = scores.shape
    lists = np.full((rows, top), NOBODY, dtype=np.int32)
    lanes = max(top + 1, math.isqrt(items * top))
    layers = -(-items // lanes)
    at_once = min(rows, max(1, CELLS // (lanes * layers)))
    left = np.full((at_once, lanes * layers), -np.inf, dtype=scores.dtype)
    for start in range(0, rows, at_once):
        part = slice(start, min(start + at_once, rows))
        inside = left[: part.stop - start]
        inside[:, :items] = scores[part]
        gone = slice(excluded.offsets[start], excluded.offsets[part.stop])
        inside[excluded.owners[gone] - start, excluded.items[gone]] = -np.inf
        _fill(lists[part], inside.reshape(len(inside), layers, lanes), users[part])
    return lists


def _fill(lists: Int32, scores: Float32, users: Int64) -> None:
    """Write lists (rows, top) from scores (rows, layers, lanes), where item `i` stands in lane `i % lanes`."""
    rows, _, lanes = scores.shape
    top = lists.shape[1]
    # No more than `top` lanes have a peak above the next highest one, and all that scores above it is in them. What
    # scores the same joins in, unless it is so much that the places left are better drawn by themselves.
    peaks = scores.max(axis=1)
    bound = np.partition(peaks, lanes - top - 1, axis=1)[:, lanes - top - 1]
    crowded = np.count_nonzero(peaks >= bound[:, None], axis=1) > _CROWD * top
    least = np.where(crowded, np.nextafter(bound, np.inf, dtype=scores.dtype), bound)
    least = np.maximum(least, np.finfo(scores.dtype).min)
    row, lane = np.nonzero(peaks >= least[:, None])
    found = scores[row, :, lane]
    pair, layer = np.nonzero(found >= least[row, None])
    row, item, score = row[pair], layer * lanes + lane[pair], found[pair, layer]
    order = np.lexsort((_tie_order(users[row], item), -score, row))
    row, item = row[order], item[order]
    filled = np.bincount(row, minlength=rows)
    place = np.arange(len(row)) - np.repeat(np.cumsum(filled) - filled, filled)
    listed = place < top
    lists[row[listed], place[listed]] = item[listed]
    for short in np.flatnonzero(crowded & (filled < top) & (bound > -np.inf)):
        tied = np.flatnonzero(scores[short].ravel() == bound[short])
        first = _first(_tie_order(users[short : short + 1], tied), top - filled[short])
        lists[short, filled[short] : filled[short] + len(first)] = tied[first]


def _first(keys: UInt32, count: int) -> npt.NDArray[np.intp]:
    """Places of the `count` smallest keys, or of all where there are fewer, in rising order."""
    smallest = np.argpartition(keys, count - 1)[:count] if count < len(keys) else np.arange(len(keys))
    return smallest[np.argsort(keys[smallest])]


def _tie_order(users: Int64, items: Int64) -> UInt32:
    """Keys by which the equal scores of a user are ordered; those of one user are all different."""
    return mix32(mix64(users.astype(np.uint64)).astype(np.uint32) ^ mix32(items.astype(np.uint32) + np.uint32(1)))
