"""Recommend what is popular."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reaemb_bench.artifacts import Corpus, Float32, Sequences
from reaemb_bench.component import Component


class Popularity(Component):
    """Score each item by its training interactions, the same for everybody."""

    def fit(self, corpus: Corpus) -> PopularityScorer:
        """Count; held-out interactions are not in the corpus."""
        return PopularityScorer(corpus.popularity.astype(np.float32))


@dataclass(frozen=True)
class PopularityScorer:
    """counts: (items,) training interactions."""

    counts: Float32

    def scores(self, histories: Sequences) -> Float32:
        """(users, items): one row seen once a user, not copied."""
        return np.broadcast_to(self.counts, (histories.users, len(self.counts)))
