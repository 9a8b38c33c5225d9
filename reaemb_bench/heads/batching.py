"""Histories as padded tensors, without Python work per user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reaemb_bench.artifacts import Int64, Sequences


@dataclass(frozen=True)
class Padded:
    """items: (users, length) int64; lengths: (users,) int64."""

    items: Tensor
    lengths: Tensor


def pad(histories: Sequences, max_length: int, *, left: bool, device: torch.device) -> Padded:
    """The last `max_length` items of every history.

    Padded with item 0 on the right to the longest of them, or with `left` on the left to `max_length`.
    """
    lengths = np.minimum(histories.lengths, max_length)
    width = max_length if left else max(1, int(lengths.max(initial=1)))
    starts = histories.offsets[1:] - lengths
    columns = np.arange(width) - (width - lengths[:, None] if left else 0)
    real = (columns >= 0) & (columns < lengths[:, None])
    items = np.zeros((histories.users, width), dtype=np.int64)
    items[real] = histories.items[(starts[:, None] + columns)[real]]
    return Padded(torch.from_numpy(items).to(device), torch.from_numpy(lengths).to(device))


def shuffled_batches(lengths: Int64, size: int, generator: np.random.Generator) -> list[Int64]:
    """Row numbers in random batches whose members have similar lengths.

    Rows are shuffled, then sorted by length within windows of 16 batches, and the batches are shuffled again: most
    padding goes while batches stay random.
    """
    order = generator.permutation(len(lengths))
    batches: list[Int64] = []
    for start in range(0, len(order), 16 * size):
        window = order[start : start + 16 * size]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches.extend(np.split(window, range(size, len(window), size)))
    return [batches[place] for place in generator.permutation(len(batches))]


@dataclass(frozen=True)
class Untouched:
    """Draws uniform items that a user never touched.

    codes: sorted user · items + item of every distinct pair; touched: distinct items of each user, (users,).
    """

    items: int
    codes: Int64
    touched: Int64

    @classmethod
    def by(cls, sequences: Sequences, items: int) -> Untouched:
        """Prepare for the users of `sequences`."""
        codes = np.unique(sequences.owners * items + sequences.items)
        touched = np.bincount(codes // items, minlength=sequences.users)
        # A search may end behind the last pair; no pair has this code.
        return cls(items, np.append(codes, np.iinfo(np.int64).max), touched)

    def draw(self, owners: Int64, count: int, generator: np.random.Generator) -> Int64:
        """(positions, count) items that the owner of each position never touched.

        A user who touched every item gets uniform ones, for there is no other choice.
        """
        drawn = generator.integers(self.items, size=(len(owners), count))
        rows = np.flatnonzero(self.touched[owners] < self.items)
        while len(rows):
            wanted = owners[rows, None] * self.items + drawn[rows]
            found = self.codes[np.searchsorted(self.codes, wanted)] == wanted
            again = found.any(axis=1)
            rows, found = rows[again], found[again]
            drawn[rows] = np.where(found, generator.integers(self.items, size=found.shape), drawn[rows])
        return drawn
