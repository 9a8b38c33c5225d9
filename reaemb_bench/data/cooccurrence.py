"""How often two items appear in the same user's sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reaemb_bench.artifacts import Sequences

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def cooccurrence(sequences: Sequences, items: int) -> csr_array:
    """Symmetric counts (items, items), int64: unordered pairs of positions, in one user's sequence, of two items.

    An item that stands twice in a sequence counts twice with every other item there, and never with itself: the
    diagonal is empty. Zeros are not stored and column numbers are sorted.
    """
    from scipy.sparse import csr_array

    ones = np.ones(len(sequences.items), dtype=np.int64)
    # Duplicate (user, item) places are summed, so an entry is how often the user touched the item.
    touched = csr_array((ones, (sequences.owners, sequences.items)), shape=(sequences.users, items))
    pairs = (touched.T @ touched).tocoo()
    different = pairs.row != pairs.col
    counts = csr_array(
        (pairs.data[different], (pairs.row[different], pairs.col[different])), shape=(items, items), dtype=np.int64
    )
    counts.sort_indices()
    return counts
