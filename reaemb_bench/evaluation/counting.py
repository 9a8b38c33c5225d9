"""How many items score above, and the same as, one item of each row: a pass over the scores that stays in the cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reaemb_bench.artifacts import Float32, Int64
from reaemb_bench.finite import NotFiniteError

CELLS = 1 << 19
"""Scores that are worked on at once: what a core's cache holds."""

_WORD = 8


def count_above(scores: Float32, wanted: Float32) -> tuple[Int64, Int64]:
    """For scores (users, items) and one score a user (users,): how many in the row are above it, and how many equal it.

    Both are (users,); scores are compared as they come. Raises UserError where a score is not a finite number.
    """
    users, items = scores.shape
    above, equal = np.empty(users, dtype=np.int64), np.empty(users, dtype=np.int64)
    at_once = min(users, max(1, CELLS // items))
    # Rows of whole words, so that marks are counted eight at a time; the marks past the last item stay False.
    marks = np.zeros((at_once, -(-items // _WORD) * _WORD), dtype=np.bool_)
    for start in range(0, users, at_once):
        part = scores[start : start + at_once]
        rows = slice(start, start + len(part))
        marked = marks[: len(part)]
        inside = marked[:, :items]
        np.isfinite(part, out=inside)
        if np.count_nonzero(marked) < part.size:
            raise _not_finite(scores)
        np.greater(part, wanted[rows, None], out=inside)
        above[rows] = _per_row(marked)
        np.equal(part, wanted[rows, None], out=inside)
        equal[rows] = _per_row(marked)
    return above, equal


def _per_row(marks: npt.NDArray[np.bool_]) -> Int64:
    counted: Int64 = np.bitwise_count(marks.view(np.uint64)).sum(axis=1, dtype=np.int64)
    return counted


def _not_finite(scores: Float32) -> NotFiniteError:
    bad = ~np.isfinite(scores)
    return NotFiniteError(
        f"{int(bad.sum())} of {scores.size} scores are not finite numbers, so they rank nothing",
        np.flatnonzero(bad.any(axis=0)),
        cure="the recommender has diverged, and a lower learning rate may help",
    )
