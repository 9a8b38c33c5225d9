"""How often two items appear in the same user's training sequence, anywhere in it or near each other.

Some rows of the result are computed at a time, so that little memory is needed beyond the result itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.sparse import csr_array

from reaemb_bench.core.artifacts import Float64, Int32, Int64, Sequences
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError

_PAIRS_AT_ONCE = 1 << 22
"""Pairs of positions that a block of rows may have, unless it is a single row."""
_STEP = 2.0**-20


class WholeHistory(Component):
    """Every pair of positions in a user's sequence counts 1, however far apart: the paper's choice."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Returns symmetric counts (items, items), whole numbers, of items in the same sequence."""
        return cooccurrence(sequences, items)


class Window(Component):
    """A pair of positions counts 1 if it lies close together in a user's sequence, and nothing otherwise.

    Items that only ever met further apart count as strangers, and may be drawn as negatives.
    """

    size: int = Field(default=5, ge=1, le=1000)
    """Most positions between the two of a pair; 1 counts neighbours in the sequence alone."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Returns symmetric counts (items, items), whole numbers, of items at most `size` positions apart."""
        return cooccurrence_nearby(sequences, items, np.ones(self.size, dtype=np.int32))


class DistanceDecay(Component):
    """A pair of neighbours in a user's sequence counts 1, and each position further apart takes a share of that.

    Pairs at distance d count decay^(d - 1), rounded to steps of 2^-20; pairs that count nothing are strangers.
    """

    decay: float = Field(default=0.7, gt=0, lt=1)
    """What is left of a pair's weight with each position further apart."""
    size: int = Field(default=10, ge=1, le=1000)
    """Most positions between the two of a pair."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Returns symmetric sums (items, items) of weights, float64, of items at most `size` positions apart."""
        # Sums of such weights are exact in any order: equally near items stay equal, and the seed decides.
        weights = np.round(self.decay ** np.arange(self.size) / _STEP) * _STEP
        return cooccurrence_nearby(sequences, items, weights[weights > 0])


def cooccurrence(sequences: Sequences, items: int) -> csr_array:
    """Returns symmetric counts (items, items) of unordered pairs of positions, in one user's sequence, of two items.

    An item that stands twice in a sequence counts twice with every other item there and never with itself: the diagonal
    is empty. Zeros are not stored, column numbers are sorted. The counts are int32, or int64 if they might not fit.
    """
    # Entries count how often the user touched the item: repeated (user, item) pairs are summed in place.
    ones, offsets = np.ones(len(sequences.items), dtype=np.int32), _narrow(sequences.offsets)
    touched = csr_array((ones, sequences.items, offsets), shape=(sequences.users, items), copy=True)
    touched.sum_duplicates()
    # No pair of items co-occurs more often than the sum of each user's largest count, squared.
    starts = touched.indptr[:-1][np.diff(touched.indptr) > 0]
    largest = np.maximum.reduceat(touched.data, starts).astype(np.float64) if len(starts) else np.zeros(0)
    if (largest**2).sum() > np.iinfo(np.int32).max:
        touched.data = touched.data.astype(np.int64)
    by_item = touched.T.tocsr()
    pairs = np.bincount(sequences.items, weights=sequences.lengths[sequences.owners], minlength=items)
    # A product's columns are in no order. Transposing sorts them in one pass, and the counts are symmetric.
    return _stacked(pairs, lambda start, end: by_item[start:end] @ touched).T.tocsr()


def cooccurrence_nearby(sequences: Sequences, items: int, weights: Int32 | Float64) -> csr_array:
    """Returns symmetric sums (items, items) of weights of pairs of positions, in one sequence, of two different items.

    weights: (reach,) of pairs whose positions lie 1, 2, ... apart; pairs further apart do not count.
    """
    users = sequences.owners.astype(np.int32)
    order = np.argsort(sequences.items, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(sequences.items, minlength=items))])
    steps = np.arange(1, len(weights) + 1)
    shifts, shift_weights = np.concatenate([-steps[::-1], steps]), np.concatenate([weights[::-1], weights])

    def counted(start: int, end: int) -> csr_array:
        here = order[ends[start] : ends[end]]
        there = here[:, None] + shifts
        inside = (there >= 0) & (there < len(users))
        there[~inside] = 0
        inside &= users[there] == users[here][:, None]
        row = np.broadcast_to((sequences.items[here] - start)[:, None], there.shape)
        weight = np.broadcast_to(shift_weights, there.shape)
        pair = (row[inside], sequences.items[there[inside]])
        return csr_array((weight[inside], pair), shape=(end - start, items))

    return _stacked(np.diff(ends) * len(shifts), counted)


def checked(pairs: csr_array, items: int, name: str) -> csr_array:
    """Returns the counts of the component `name` with sorted columns. Raises UserError if they are not counts."""
    pairs = csr_array(pairs)
    pairs.sum_duplicates()
    if pairs.shape != (items, items):
        raise UserError(f"the cooccurrence '{name}' gave counts of shape {pairs.shape}, not {(items, items)}")
    if not (np.isfinite(pairs.data) & (pairs.data > 0)).all():
        raise UserError(f"the cooccurrence '{name}' gave counts that are not positive numbers; leave the others out")
    if pairs.diagonal().any():
        raise UserError(f"the cooccurrence '{name}' counts items with themselves; leave the diagonal empty")
    return pairs


def draw_neighbour(pairs: csr_array, item: int, generator: np.random.Generator) -> int:
    """Returns a neighbour of `item`, drawn by how often the two co-occur; the item's row of counts is not empty."""
    own = slice(pairs.indptr[item], pairs.indptr[item + 1])
    until = np.cumsum(pairs.data[own], dtype=np.float64)
    return int(pairs.indices[own][np.searchsorted(until, generator.random() * until[-1], side="right")])


def blocks(sizes: npt.NDArray[Any], most: int) -> Iterator[tuple[int, int]]:
    """Yields ranges (start, end) of consecutive rows of these sizes (rows,): at most `most` together, or one row."""
    before = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        end = max(start + 1, int(np.searchsorted(before, before[start] + most, side="right")) - 1)
        yield start, end
        start = end


def _narrow(offsets: Int64) -> Int32 | Int64:
    """The same offsets, int32 if they fit: SciPy widens column numbers to the type of the offsets."""
    return offsets.astype(np.int32) if offsets[-1] <= np.iinfo(np.int32).max else offsets


def _stacked(pairs: npt.NDArray[Any], counted: Callable[[int, int], csr_array]) -> csr_array:
    """Counts (items, items) with an empty diagonal, made of some rows at a time. pairs: of positions, by row."""
    columns, values, lengths = [], [], [np.zeros(1, dtype=np.int64)]
    for start, end in blocks(pairs, _PAIRS_AT_ONCE):
        part = counted(start, end)
        part.data[part.indices == np.repeat(np.arange(start, end, dtype=np.int32), np.diff(part.indptr))] = 0
        part.eliminate_zeros()
        columns.append(part.indices)
        values.append(part.data)
        lengths.append(np.diff(part.indptr))
    # One after the other, so that only one of the two is in memory twice.
    all_columns = np.concatenate(columns)
    columns.clear()
    offsets = _narrow(np.cumsum(np.concatenate(lengths)))
    return csr_array((np.concatenate(values), all_columns, offsets), shape=(len(pairs), len(pairs)))
