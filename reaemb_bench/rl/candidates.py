"""Candidate lists of rollouts: an item's neighbours among items that never co-occur with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reaemb_bench.core.artifacts import Float64, Int64
from reaemb_bench.data.cooccurrence import blocks, draw_neighbour
from reaemb_bench.data.negative_sampling import draw_unknown

if TYPE_CHECKING:
    from scipy.sparse import csr_array


_NEIGHBOURS_AT_ONCE = 1 << 18
"""Most neighbours of the items that are processed at once (a single item may have more): they fit a core's cache."""


@dataclass(frozen=True)
class Candidates:
    """The candidate lists of all items that have one.

    items: (n,) ascending item numbers. lists: (n, N) item numbers, the positives first, the most co-occurring of them
    leading. counts: (n, N) how often they co-occur, 0 for negatives. without_neighbours: items left out because nothing
    co-occurs with them. without_strangers: items left out because too few items never co-occur with them. pairs: the
    co-occurrence counts (items, items) of which all this was taken.
    """

    items: Int64
    lists: Int64
    counts: Float64
    without_neighbours: int
    without_strangers: int
    pairs: csr_array


@dataclass(frozen=True)
class Ranking:
    """What the rollouts of a step rank.

    items: (u,) different item numbers. columns: (g, N) the places in `items` of each group's candidates. shares:
    (g, N) each positive's share of the group's co-occurrences, 0 for negatives.
    """

    items: Int64
    columns: Int64
    shares: Float64


def sampled(candidates: Candidates, groups: Int64) -> Ranking:
    """The candidate lists `groups` (g,), as drawn."""
    return _of_lists(candidates.lists[groups], candidates.counts[groups])


def hard(candidates: Candidates, groups: Int64, nearest: Int64) -> Ranking:
    """The positives of the lists `groups` (g,), and of each group's other items the first that never co-occur with it.

    nearest: (g, k) item numbers by falling similarity, in which every group finds enough of them.
    """
    positives = (candidates.counts[groups] > 0).sum(1)
    lists = candidates.lists[groups].copy()
    for row, (group, first) in enumerate(zip(groups, positives, strict=True)):
        item = candidates.items[group]
        known = candidates.pairs.indices[candidates.pairs.indptr[item] : candidates.pairs.indptr[item + 1]]
        strangers = nearest[row][~np.isin(nearest[row], known) & (nearest[row] != item)]
        mined = strangers[: lists.shape[1] - first]
        lists[row, first : first + len(mined)] = mined
    return _of_lists(lists, candidates.counts[groups])


def of_batch(candidates: Candidates, groups: Int64, generator: np.random.Generator) -> Ranking:
    """One neighbour of each group, drawn by how often the two co-occur: every group ranks the neighbours of all."""
    pairs, own = candidates.pairs, candidates.items[groups]
    drawn = np.array([draw_neighbour(pairs, item, generator) for item in own.tolist()])
    return _all_but_own(pairs, own, np.unique(drawn))


def of_catalogue(candidates: Candidates, groups: Int64) -> Ranking:
    """Every group ranks all other items, all its neighbours by their shares."""
    return _all_but_own(candidates.pairs, candidates.items[groups], np.arange(candidates.pairs.shape[0]))


def _of_lists(lists: Int64, counts: Float64) -> Ranking:
    items, columns = np.unique(lists, return_inverse=True)
    return Ranking(items, columns.reshape(lists.shape), counts / counts.sum(1, keepdims=True))


def _all_but_own(pairs: csr_array, own: Int64, items: Int64) -> Ranking:
    """Each of `own` (g,) ranks `items` (u,) but itself, or but the last stranger if it is not among them."""
    counts = pairs[own][:, items].toarray().astype(np.float64)
    left_out = own[:, None] == items
    missing = ~left_out.any(1)
    left_out[missing, len(items) - 1 - (counts[missing, ::-1] == 0).argmax(1)] = True
    columns = np.nonzero(~left_out)[1].reshape(len(own), -1)
    shares = np.take_along_axis(counts, columns, 1)
    return Ranking(items, columns, shares / shares.sum(1, keepdims=True))


def draw_candidates(pairs: csr_array, positives: int, candidates: int, seed: int) -> Candidates:
    """Up to `positives` neighbours of each item, filled up to `candidates` with items that never co-occur with it.

    pairs: co-occurrence counts (items, items), whole or weighed, with an empty diagonal, no stored zeros and sorted
    columns. Neighbours are the most co-occurring, equal counts in random order; the others are drawn uniformly without
    replacement.
    """
    generator = np.random.default_rng(seed)
    items = pairs.shape[0]
    neighbours = np.diff(pairs.indptr).astype(np.int64)
    taken = np.minimum(neighbours, positives)
    without_neighbours = neighbours == 0
    without_strangers = ~without_neighbours & (items - 1 - neighbours < candidates - taken)
    kept = np.flatnonzero(~without_neighbours & ~without_strangers)
    lists = np.zeros((len(kept), candidates), dtype=np.int64)
    counts = np.zeros((len(kept), candidates))
    for start, end in blocks(neighbours[kept], _NEIGHBOURS_AT_ONCE):
        here = kept[start:end]
        rows = pairs[here]
        lists[start:end, :positives], counts[start:end, :positives] = _most_cooccurring(rows, positives, generator)
        known = _known(rows, here)
        for number in np.unique(taken[here]):
            own = np.flatnonzero(taken[here] == number)
            lists[start + own, number:] = draw_unknown(own, known, items, candidates - number, generator)
    return Candidates(kept, lists, counts, int(without_neighbours.sum()), int(without_strangers.sum()), pairs)


def _most_cooccurring(rows: csr_array, positives: int, generator: np.random.Generator) -> tuple[Int64, Float64]:
    """Neighbours (n, positives) of n items by falling count and their counts, 0 if an item has fewer neighbours.

    rows: (n, items), none of them empty.
    """
    starts = rows.indptr[:-1]
    owners = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    chance = generator.random(len(owners))
    left = rows.data.astype(np.float64)
    best = np.zeros((rows.shape[0], positives), dtype=np.int64)
    counts = np.zeros((rows.shape[0], positives))
    for position in range(positives):
        largest = np.maximum.reduceat(left, starts)
        drawn = np.where((left == largest[owners]) & (left > 0), chance, -1.0)
        chosen = np.flatnonzero((drawn == np.maximum.reduceat(drawn, starts)[owners]) & (drawn >= 0))
        # Two random numbers may be the same: of each row the first is taken.
        chosen = chosen[np.diff(owners[chosen], prepend=-1) > 0]
        best[owners[chosen], position] = rows.indices[chosen]
        counts[owners[chosen], position] = left[chosen]
        left[chosen] = 0
    return best, counts


def _known(rows: csr_array, numbers: Int64) -> Int64:
    """Ascending codes row * items + item of each row's neighbours and of the row's own item."""
    items = rows.shape[1]
    met = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)) * items + rows.indices
    # Two ascending runs, which a stable sort merges.
    return np.sort(np.concatenate([met, np.arange(rows.shape[0]) * items + numbers]), kind="stable")
