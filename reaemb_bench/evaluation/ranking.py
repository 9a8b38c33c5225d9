"""From scores to ranks: how many items score above each target, how many the same, and the lists of the best items.

`rank_targets` is the whole story; `count_above`, `best_items` and the hash that orders equal scores follow it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.artifacts import Float32, Int32, Int64, Ranks, Sequences, UInt64
from reaemb_bench.core.component import Progress
from reaemb_bench.core.errors import NotFiniteError, UserError

UInt32 = npt.NDArray[np.uint32]

NO_SAMPLE = -1
"""`sampled_better` of users without stored candidates, who have no sampled rank."""
NO_ITEM = -1
"""Fills the lists of users for whom fewer items are left than a list is long."""
CHUNK = 256
"""Most users per call of a scorer."""
CHUNK_SCORES = 1 << 23
"""Most scores per call of a scorer: 32 MB."""
CACHED_SCORES = 1 << 19
"""Scores that are worked on at once: what a core's cache holds."""
_MOST_TIED = 4


class Scorer(Protocol):
    """Scores the whole catalogue for users' histories."""

    def scores(self, histories: Sequences) -> Float32:
        """(users, items), higher is better."""


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

    histories: sequences of all users; the scorer gets those of `users` (n,), `chunk` users per call, by default 256 or
    as many fewer as keep their scores within 32 MB. targets: (n,). candidates: (n, sample), none of them the target.
    popularity: (items,) training interactions. seen: sequences of all users whose items leave the catalogue, by default
    the histories; the target itself always stays. top: length of the recommended lists. Scores are compared exactly, so
    equal ones count as tied. Raises UserError if a score is not a finite number.
    """
    count, items = len(users), len(popularity)
    excluded = _without_targets((histories if seen is None else seen).select(users), targets, items)
    chunk = chunk or max(1, min(CHUNK, CHUNK_SCORES // items))
    better, tied, sampled_better, sampled_tied = np.empty((4, count), dtype=np.int64)
    history_hash, sample_hash = np.empty((2, count), dtype=np.uint64)
    recommended = np.empty((count, top), dtype=np.int32)
    for start in range(0, count, chunk):
        rows = slice(start, min(start + chunk, count))
        own, wanted_items, sample_items = histories.select(users[rows]), targets[rows], candidates[rows]
        shape = (own.users, items)
        scores = scorer.scores(own)
        if scores.shape != shape:
            raise UserError(f"a scorer gave scores of shape {scores.shape}, not {shape} (users, items)")
        if not np.issubdtype(scores.dtype, np.floating):
            raise UserError(f"a scorer gave scores of type {scores.dtype}, not float32")

        # Count over all items, then take back what the excluded items and the target itself added.
        wanted = scores[np.arange(own.users), wanted_items]
        better[rows], tied[rows] = count_above(scores, wanted)
        gone = excluded.select(np.arange(rows.start, rows.stop))
        gone_score, gone_wanted = scores[gone.owners, gone.items], wanted[gone.owners]
        better[rows] -= np.bincount(gone.owners[gone_score > gone_wanted], minlength=own.users)
        tied[rows] -= np.bincount(gone.owners[gone_score == gone_wanted], minlength=own.users) + 1

        sample = np.take_along_axis(scores, sample_items.astype(np.int64), axis=1)
        sampled_better[rows] = np.count_nonzero(sample > wanted[:, None], axis=1) if sample.shape[1] else NO_SAMPLE
        sampled_tied[rows] = np.count_nonzero(sample == wanted[:, None], axis=1)
        # A few users at once stay in the processor's cache, where a hash costs little.
        history_hash[rows] = hash_sequences(own)
        sample_hash[rows] = _hash_items(sample_items, np.arange(sample.shape[1])).sum(axis=1, dtype=np.uint64)
        if top:
            recommended[rows] = best_items(scores, gone, users[rows], top)
        if report is not None:
            report(Progress(rows.stop, count, "users"))
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
        history_hash=history_hash,
        sample_hash=sample_hash,
    )


def _without_targets(seen: Sequences, targets: Int32, items: int) -> Sequences:
    """The items that leave each user's catalogue: those of `seen`, each once, without the user's target."""
    # A sort is several times faster than np.unique, which hashes.
    pairs = np.sort(seen.owners * items + seen.items)
    owners, numbers = np.divmod(pairs, items)
    gone = (np.diff(pairs, prepend=-1) > 0) & (numbers != targets[owners])
    lengths = np.bincount(owners[gone], minlength=seen.users)
    return Sequences(numbers[gone].astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def count_above(scores: Float32, wanted: Float32) -> tuple[Int64, Int64]:
    """How many scores of each row (users, items) are above its wanted score (users,), and how many equal it.

    Both are (users,); scores are compared exactly. Raises UserError if a score is not a finite number.
    """
    users, items = scores.shape
    above, equal = np.empty((2, users), dtype=np.int64)
    at_once = min(users, max(1, CACHED_SCORES // items))
    # Rows of whole 8-byte words, so that marks are counted eight at a time; marks after the last item stay False.
    marks = np.zeros((at_once, -(-items // 8) * 8), dtype=np.bool_)
    for start in range(0, users, at_once):
        part = scores[start : start + at_once]
        rows = slice(start, start + len(part))
        inside, words = marks[: len(part), :items], marks[: len(part)].view(np.uint64)
        np.isfinite(part, out=inside)
        if np.count_nonzero(inside) < part.size:
            bad = ~np.isfinite(scores)
            raise NotFiniteError(
                f"{int(bad.sum())} of {scores.size} scores are not finite numbers, so they rank nothing",
                np.flatnonzero(bad.any(axis=0)),
                cure="the recommender has diverged, and a lower learning rate may help",
            )
        for compare, counts in ((np.greater, above), (np.equal, equal)):
            compare(part, wanted[rows, None], out=inside)
            counts[rows] = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    return above, equal


def best_items(scores: Float32, excluded: Sequences, users: Int64, top: int) -> Int32:
    """The `top` items with the highest scores of each row, best first: (rows, top), `NO_ITEM` if no item is left.

    scores: (rows, items), finite. excluded: items that may not be in a row's list, one sequence per row. users: (rows,)
    user numbers. Equal scores are in the order of a hash of user and item: as if drawn at random, and for each user the
    same at every length of the list and in every batch.
    """
    rows, items = scores.shape
    lists = np.full((rows, top), NO_ITEM, dtype=np.int32)
    # Item `i` is in lane `i % lanes`, at layer `i // lanes`.
    lanes = max(top + 1, math.isqrt(items * top))
    layers = -(-items // lanes)
    at_once = min(rows, max(1, CACHED_SCORES // (lanes * layers)))
    left = np.full((at_once, lanes * layers), -np.inf, dtype=scores.dtype)
    for start in range(0, rows, at_once):
        part = slice(start, min(start + at_once, rows))
        inside = left[: part.stop - start]
        inside[:, :items] = scores[part]
        gone = slice(excluded.offsets[start], excluded.offsets[part.stop])
        inside[excluded.owners[gone] - start, excluded.items[gone]] = -np.inf
        _fill_lists(lists[part], inside.reshape(len(inside), layers, lanes), users[part])
    return lists


def _fill_lists(lists: Int32, scores: Float32, users: Int64) -> None:
    """Write lists (rows, top) from scores (rows, layers, lanes)."""
    rows, _, lanes = scores.shape
    top = lists.shape[1]
    # At most `top` lanes have a peak above the next highest peak, the bound, and they hold all scores above the bound.
    # Scores equal to the bound join in, unless they are so many that it is cheaper to draw them separately below.
    peaks = scores.max(axis=1)
    bound = np.partition(peaks, lanes - top - 1, axis=1)[:, lanes - top - 1]
    crowded = np.count_nonzero(peaks >= bound[:, None], axis=1) > _MOST_TIED * top
    least = np.where(crowded, np.nextafter(bound, np.inf, dtype=scores.dtype), bound)
    least = np.maximum(least, np.finfo(scores.dtype).min)

    row, lane = np.nonzero(peaks >= least[:, None])
    of_lanes = scores[row, :, lane]
    pair, layer = np.nonzero(of_lanes >= least[row, None])
    row, item, score = row[pair], layer * lanes + lane[pair], of_lanes[pair, layer]
    order = np.lexsort((_tie_order(users[row], item), -score, row))
    row, item = row[order], item[order]
    filled = np.bincount(row, minlength=rows)
    position = np.arange(len(row)) - np.repeat(np.cumsum(filled) - filled, filled)
    listed = position < top
    lists[row[listed], position[listed]] = item[listed]

    for short in np.flatnonzero(crowded & (filled < top) & (bound > -np.inf)):
        tied = np.flatnonzero(scores[short].ravel() == bound[short])
        keys, missing = _tie_order(users[short : short + 1], tied), top - filled[short]
        smallest = np.argpartition(keys, missing - 1)[:missing] if missing < len(keys) else np.arange(len(keys))
        drawn = tied[smallest[np.argsort(keys[smallest])]]
        lists[short, filled[short] : filled[short] + len(drawn)] = drawn


def _tie_order(users: Int64, items: Int64) -> UInt32:
    """Keys by which the equal scores of a user are ordered; those of one user are all different."""
    return mix32(mix64(users.astype(np.uint64)).astype(np.uint32) ^ mix32(items.astype(np.uint32) + np.uint32(1)))


def hash_sequences(sequences: Sequences) -> UInt64:
    """A number for each sequence (users,), decided by its items and their order; 0 for an empty one."""
    position = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    # Unsigned sums wrap around, so differences of running sums are exact.
    total = np.cumsum(np.append(np.uint64(0), _hash_items(sequences.items, position)), dtype=np.uint64)
    hashes: UInt64 = np.diff(total[sequences.offsets])
    return hashes


def _hash_items(items: Int32, position: Int64) -> UInt64:
    return mix64(((position.astype(np.uint64) << np.uint64(32)) + np.uint64(1)) + items.astype(np.uint32))


def mix64(values: UInt64) -> UInt64:
    """A hash that is one to one: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed: UInt64 = values * np.uint64(0x9E3779B97F4A7C15)
    # One array for all shifts: a new one each time takes four times as long.
    shifted = np.empty_like(mixed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= np.right_shift(mixed, np.uint64(shift), out=shifted)
        mixed *= np.uint64(factor)
    mixed ^= np.right_shift(mixed, np.uint64(31), out=shifted)
    return mixed


def mix32(values: UInt32) -> UInt32:
    """A hash that is one to one, written over `values`: the finaliser of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values ^= values >> np.uint32(shift)
        values *= np.uint32(factor)
    values ^= values >> np.uint32(16)
    return values
