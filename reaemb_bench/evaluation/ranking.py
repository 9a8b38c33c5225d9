"""Numbers that look random and depend on nothing but what goes in: scrambled bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.artifacts import Float32, Int32, Int64, Ranks, Sequences
from reaemb_bench.core.component import Progress
from reaemb_bench.core.errors import NotFiniteError, UserError


class Scorer(Protocol):
    """Scores the whole catalogue for users' histories."""

    def scores(self, histories: Sequences) -> Float32:
        """(users, items), higher is better."""


UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]


def mix64(values: UInt64) -> UInt64:
    """Other bits, one to one; the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed: UInt64 = values * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def mix32(values: UInt32) -> UInt32:
    """Other bits, one to one, written over `values`; the finaliser of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values ^= values >> np.uint32(shift)
        values *= np.uint32(factor)
    values ^= values >> np.uint32(16)
    return values


# How many items score above, and the same as, one item of each row: a pass over the scores that stays in the cache.


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


# The lists that a recommender would show: the best items of each user, without a pass of sorting.


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
    without_strangers = np.count_nonzero(peaks >= bound[:, None], axis=1) > _CROWD * top
    least = np.where(without_strangers, np.nextafter(bound, np.inf, dtype=scores.dtype), bound)
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
    for short in np.flatnonzero(without_strangers & (filled < top) & (bound > -np.inf)):
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


# From scores to ranks: how many items score above each target, and how many the same.


NO_SAMPLE = -1
"""`sampled_better` of users without stored candidates, who have no sampled rank."""
CHUNK = 256
"""Users that a scorer is handed at once, at most."""
CHUNK_SCORES = 1 << 23
"""Scores that a scorer is asked for at once, at most: 32 MB of them."""


def rank_targets(
    scorer: Scorer,
    histories: Sequences,
    users: Int64,
    targets: Int32,
    candidates: Int32,
    *,
    popularity: Int64,
    seen: Sequences | None = None,
    top: int = 0,
    chunk: int | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Ranks:
    """Rank each target against the whole catalogue and, in the same pass, against its stored candidates.

    histories: sequences of all users, of which the scorer is handed those of `users` (n,), `chunk` users at once; by
    default 256, or as many fewer as keep their scores within 32 MB. targets: (n,). candidates: (n, sample), none of
    them the target. popularity: (items,) training interactions. seen: sequences of all users whose items leave the
    catalogue, by default the histories; the target itself always stays. top: how many recommended items to list for
    each user, see `reaemb_bench.evaluation.recommending`. Scores are compared exactly as they come, so equal ones count
    as tied. Raises UserError where a score is not a finite number.
    """
    items = len(popularity)
    excluded = _excluded((histories if seen is None else seen).select(users), targets, items)
    chunk = chunk or max(1, min(CHUNK, CHUNK_SCORES // items))
    counts = np.empty((4, len(users)), dtype=np.int64)
    recommended = np.empty((len(users), top), dtype=np.int32)
    for start in range(0, len(users), chunk):
        rows = np.arange(start, min(start + chunk, len(users)))
        scores = scorer.scores(histories.select(users[rows]))
        _check(scores, (len(rows), items))
        gone = excluded.select(rows)
        counts[:, rows] = _count(scores, targets[rows], candidates[rows], gone)
        if top:
            recommended[rows] = best_items(scores, gone, users[rows], top)
        if report is not None:
            report(Progress(start + len(rows), len(users), "users"))
    better, tied, sampled_better, sampled_tied = counts
    return Ranks(
        users=users,
        targets=targets,
        better=better,
        tied=tied,
        sampled_better=sampled_better,
        sampled_tied=sampled_tied,
        popularity=popularity[targets],
        history=histories.lengths[users],
        catalogue=items - excluded.lengths,
        recommended=recommended,
        item_popularity=popularity,
    )


def _excluded(seen: Sequences, targets: Int32, items: int) -> Sequences:
    """What leaves each user's catalogue: the items of `seen`, each once, without the user's target."""
    # A sort is several times faster than np.unique, which hashes.
    places = np.sort(seen.owners * items + seen.items)
    owners, numbers = np.divmod(places, items)
    gone = (np.diff(places, prepend=-1) > 0) & (numbers != targets[owners])
    lengths = np.bincount(owners[gone], minlength=seen.users)
    return Sequences(numbers[gone].astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _check(scores: Float32, shape: tuple[int, int]) -> None:
    if scores.shape != shape:
        raise UserError(f"a scorer gave scores of shape {scores.shape}, not {shape} (users, items)")
    if not np.issubdtype(scores.dtype, np.floating):
        raise UserError(f"a scorer gave scores of type {scores.dtype}, not float32")


def _count(scores: Float32, targets: Int32, candidates: Int32, excluded: Sequences) -> Int64:
    """Counts (4, n): better and tied in the catalogue, better and tied in the sample."""
    wanted = scores[np.arange(len(targets)), targets]
    better, tied = count_above(scores, wanted)
    gone, mark = scores[excluded.owners, excluded.items], wanted[excluded.owners]
    better -= np.bincount(excluded.owners[gone > mark], minlength=len(targets))
    tied -= np.bincount(excluded.owners[gone == mark], minlength=len(targets)) + 1

    sample = np.take_along_axis(scores, candidates.astype(np.int64), axis=1)
    sampled_better = np.count_nonzero(sample > wanted[:, None], axis=1)
    sampled_tied = np.count_nonzero(sample == wanted[:, None], axis=1)
    if not candidates.shape[1]:
        sampled_better[:] = NO_SAMPLE
    return np.stack([better, tied, sampled_better, sampled_tied])
