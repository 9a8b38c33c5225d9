"""Co-occurrences: how often two items were bought together, from users' training sequences alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from reaemb_bench.artifacts import Sequences
from reaemb_bench.component import Component

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_STEP = 2.0**-20


class WholeHistory(Component):
    """Every pair of positions in a user's sequence counts 1, however far apart: the paper's choice."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Symmetric counts (items, items), whole numbers, of items in the same sequence."""
        from reaemb_bench.data.cooccurrence import cooccurrence

        return cooccurrence(sequences, items)


class Window(Component):
    """A pair of positions counts 1 if it lies close together in a user's sequence, and nothing otherwise.

    Items that only ever met further apart are strangers here, and may be drawn as negatives.
    """

    size: int = Field(default=5, ge=1, le=1000)
    """Most positions that the two of a pair lie apart; 1 counts neighbours in the sequence alone."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Symmetric counts (items, items), whole numbers, of items at most `size` positions apart."""
        from reaemb_bench.data.cooccurrence import cooccurrence_nearby

        return cooccurrence_nearby(sequences, items, np.ones(self.size, dtype=np.int32))


class DistanceDecay(Component):
    """A pair of neighbours in a user's sequence counts 1, and each position further apart takes a share of that.

    Pairs at distance d count decay^(d - 1), in steps of 2^-20, up to a distance beyond which they count nothing and
    are strangers.
    """

    decay: float = Field(default=0.7, gt=0, lt=1)
    """What is left of a pair's weight with each position further apart."""
    size: int = Field(default=10, ge=1, le=1000)
    """Most positions that the two of a pair lie apart."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Symmetric sums (items, items) of weights, float64, of items at most `size` positions apart."""
        from reaemb_bench.data.cooccurrence import cooccurrence_nearby

        # Sums of such weights are exact in any order: what is equally near stays so, and the seed decides.
        weights = np.round(self.decay ** np.arange(self.size) / _STEP) * _STEP
        return cooccurrence_nearby(sequences, items, weights[weights > 0])
