"""Candidate lists that a rollout is rewarded for ranking: an item's neighbours among items that it never met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reaemb_bench.artifacts import Int64

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_KEYS_AT_ONCE = 1 << 24
"""Random keys held in memory while negatives are drawn: 64 MiB."""


@dataclass(frozen=True)
class Candidates:
    """The candidate lists of all items that have one.

    items: (n,) ascending item numbers. lists: (n, N) item numbers, the positives first, the most co-occurring of them
    leading. counts: (n, N) co-occurrences, 0 for negatives. lonely: items left out because nothing co-occurs with
    them. crowded: items left out because too few items never co-occur with them.
    """

    items: Int64
    lists: Int64
    counts: Int64
    lonely: int
    crowded: int


def draw_candidates(pairs: csr_array, positives: int, candidates: int, seed: int) -> Candidates:
    """Up to `positives` neighbours of each item, filled up to `candidates` with items that never co-occur with it.

    pairs: symmetric co-occurrence counts (items, items) with an empty diagonal and no stored zeros. Neighbours are
    the most co-occurring, equal counts in random order; the others are drawn uniformly without replacement.
    """
    generator = np.random.default_rng(seed)
    items = pairs.shape[0]
    neighbours = np.diff(pairs.indptr).astype(np.int64)
    taken = np.minimum(neighbours, positives)
    strangers = items - 1 - neighbours
    lonely = neighbours == 0
    crowded = ~lonely & (strangers < candidates - taken)
    kept = np.flatnonzero(~lonely & ~crowded)
    best, counts = _most_cooccurring(pairs, positives, generator)
    lists = np.zeros((len(kept), candidates), dtype=np.int64)
    shares = np.zeros((len(kept), candidates), dtype=np.int64)
    lists[:, :positives] = best[kept]
    shares[:, :positives] = counts[kept]
    place = np.arange(candidates) - taken[kept, None]
    negative = place >= 0
    row = np.broadcast_to(np.arange(len(kept))[:, None], place.shape)
    lists[negative] = _strangers(pairs, kept, candidates, generator)[row[negative], place[negative]]
    return Candidates(kept, lists, shares, int(lonely.sum()), int(crowded.sum()))


def _most_cooccurring(pairs: csr_array, positives: int, generator: np.random.Generator) -> tuple[Int64, Int64]:
    """Neighbours (items, positives) by falling count and their counts, 0 where an item has fewer neighbours."""
    items = pairs.shape[0]
    rows = np.repeat(np.arange(items), np.diff(pairs.indptr))
    order = np.lexsort((generator.random(len(rows)), -pairs.data, rows))
    place = np.arange(len(rows)) - pairs.indptr[rows]
    first = place < positives
    best = np.zeros((items, positives), dtype=np.int64)
    counts = np.zeros((items, positives), dtype=np.int64)
    best[rows[first], place[first]] = pairs.indices[order][first]
    counts[rows[first], place[first]] = pairs.data[order][first]
    return best, counts


def _strangers(pairs: csr_array, rows: Int64, count: int, generator: np.random.Generator) -> Int64:
    """(rows, count) items in random order, those that never co-occur with the row's item before all others."""
    items = pairs.shape[0]
    drawn = np.empty((len(rows), count), dtype=np.int64)
    step = max(1, _KEYS_AT_ONCE // items)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        keys = generator.random((len(some), items), dtype=np.float32)
        keys[np.arange(len(some)), some] = np.inf
        here = pairs[some]
        keys[np.repeat(np.arange(len(some)), np.diff(here.indptr)), here.indices] = np.inf
        near = np.argpartition(keys, count - 1, axis=1)[:, :count]
        nearest = np.argsort(np.take_along_axis(keys, near, axis=1), axis=1, kind="stable")
        drawn[start : start + step] = np.take_along_axis(near, nearest, axis=1)
    return drawn
