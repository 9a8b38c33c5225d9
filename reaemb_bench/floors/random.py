"""Recommend anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reaemb_bench.artifacts import Corpus, Float32, Sequences
from reaemb_bench.component import Component
from reaemb_bench.evaluation.scramble import UInt64, mix32, mix64


class Random(Component):
    """Score items at random: what a metric is worth when nothing is known.

    A score is a hash of the seed, the user's history and the item, so it does not depend on which users are scored
    together or in which order, and users with different histories get independent scores.
    """

    seed: int = 0
    """Chooses among equally random orders."""

    def fit(self, corpus: Corpus) -> RandomScorer:
        """Nothing is counted but the items."""
        return RandomScorer(self.seed, corpus.items)


@dataclass(frozen=True)
class RandomScorer:
    """seed: see `Random`. items: size of the catalogue."""

    seed: int
    items: int

    def scores(self, histories: Sequences) -> Float32:
        """(users, items), uniform in [0, 1) in steps of 2**-24."""
        seed = np.array([self.seed % 2**64], dtype=np.uint64)
        users = mix64(_hash_histories(histories) + mix64(seed)).astype(np.uint32)
        items = mix64(np.arange(self.items, dtype=np.uint64) + np.uint64(1)).astype(np.uint32)
        bits = mix32(users[:, None] ^ items[None, :])
        bits >>= np.uint32(8)
        scores: Float32 = bits.astype(np.float32)
        scores *= np.float32(2.0**-24)
        return scores


def _hash_histories(histories: Sequences) -> UInt64:
    """A number for each history (users,), decided by its items and their order; 0 for an empty one."""
    place = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], histories.lengths)
    each = mix64((place.astype(np.uint64) << np.uint64(32)) + histories.items.astype(np.uint64) + np.uint64(1))
    # Unsigned sums wrap around, so differences of running sums are exact.
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(each, dtype=np.uint64)])
    hashes: UInt64 = total[histories.offsets[1:]] - total[histories.offsets[:-1]]
    return hashes
