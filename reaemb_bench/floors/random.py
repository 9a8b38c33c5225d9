"""Recommend anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reaemb_bench.artifacts import Corpus, Float32, Sequences
from reaemb_bench.component import Component

_UInt32 = npt.NDArray[np.uint32]
_UInt64 = npt.NDArray[np.uint64]


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
        users = _mix64(_hash_histories(histories) + _mix64(seed)).astype(np.uint32)
        items = _mix64(np.arange(self.items, dtype=np.uint64) + np.uint64(1)).astype(np.uint32)
        bits = _mix32(users[:, None] ^ items[None, :])
        bits >>= np.uint32(8)
        scores: Float32 = bits.astype(np.float32)
        scores *= np.float32(2.0**-24)
        return scores


def _hash_histories(histories: Sequences) -> _UInt64:
    """A number for each history (users,), decided by its items and their order; 0 for an empty one."""
    place = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], histories.lengths)
    each = _mix64((place.astype(np.uint64) << np.uint64(32)) + histories.items.astype(np.uint64) + np.uint64(1))
    # Unsigned sums wrap around, so differences of running sums are exact.
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(each, dtype=np.uint64)])
    hashes: _UInt64 = total[histories.offsets[1:]] - total[histories.offsets[:-1]]
    return hashes


def _mix64(values: _UInt64) -> _UInt64:
    """Scrambles bits, one to one; the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed: _UInt64 = values * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _mix32(values: npt.NDArray[Any]) -> _UInt32:
    """Scrambles bits, one to one and in place; the finaliser of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values ^= values >> np.uint32(shift)
        values *= np.uint32(factor)
    values ^= values >> np.uint32(16)
    return values
