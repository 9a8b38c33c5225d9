"""Data sets of the plain loop: one user, one padded row, all of it in Python. Ids count from 1; 0 is padding."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from benchmarks.recommenders.plain_networks import Head

Row = tuple[npt.NDArray[Any] | int, ...]
MASKED = 0.6


@dataclass(frozen=True)
class Histories:
    """Each user's items, oldest first, and the items that no negative of this user may be."""

    sequences: list[list[int]]
    touched: list[set[int]]
    items: int
    max_length: int


def untouched(items: int, touched: set[int]) -> int:
    """A uniform item that the user never touched, by trying."""
    drawn = random.randint(1, items)
    while drawn in touched:
        drawn = random.randint(1, items)
    return drawn


def padded(sequence: list[int], max_length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The last `max_length` items and their positions, 1 for the oldest, padded on the left; (max_length,) each."""
    items = np.zeros(max_length, dtype=np.int64)
    positions = np.zeros(max_length, dtype=np.int64)
    kept = sequence[-max_length:]
    for position, item in enumerate(kept):
        items[max_length - len(kept) + position] = item
        positions[max_length - len(kept) + position] = position + 1
    return items, positions


class NextItems(Dataset[Row]):
    """SASRec: each position's target is the item after it, and each has a negative."""

    def __init__(self, histories: Histories) -> None:
        self.histories = histories

    def __len__(self) -> int:
        return len(self.histories.sequences)

    def __getitem__(self, user: int) -> Row:
        """Sequence, positions, targets, negatives, (max_length,) each."""
        histories, history = self.histories, self.histories.sequences[user]
        sequence, positions = padded(history[:-1], histories.max_length)
        positive, _ = padded(history[1:], histories.max_length)
        negative = np.zeros(histories.max_length, dtype=np.int64)
        for position in range(histories.max_length):
            if positive[position] != 0:
                negative[position] = untouched(histories.items, histories.touched[user])
        return sequence, positions, positive, negative


class LastItem(Dataset[Row]):
    """GRU4Rec: the last item is the one target."""

    def __init__(self, histories: Histories) -> None:
        self.histories = histories

    def __len__(self) -> int:
        return len(self.histories.sequences)

    def __getitem__(self, user: int) -> Row:
        """Sequence and positions (max_length,), the target, the negative (1,)."""
        histories, history = self.histories, self.histories.sequences[user]
        sequence, positions = padded(history[:-1], histories.max_length)
        return sequence, positions, history[-1], np.array([untouched(histories.items, histories.touched[user])])


class MaskedItems(Dataset[Row]):
    """BERT4Rec: each user's sequence with random items masked, and once more with only its last item masked."""

    def __init__(self, histories: Histories) -> None:
        self.histories = histories

    def __len__(self) -> int:
        return 2 * len(self.histories.sequences)

    def __getitem__(self, row: int) -> Row:
        """Masked sequence, positions, targets, negatives, (max_length,) each; targets are 0 where nothing is masked."""
        histories = self.histories
        user, only_last = row % len(histories.sequences), row >= len(histories.sequences)
        sequence, positions = padded(histories.sequences[user], histories.max_length)
        positive = np.zeros(histories.max_length, dtype=np.int64)
        negative = np.zeros(histories.max_length, dtype=np.int64)
        for position in range(histories.max_length):
            if sequence[position] == 0:
                continue
            if position == histories.max_length - 1 if only_last else random.random() < MASKED:
                positive[position] = sequence[position]
                negative[position] = untouched(histories.items, histories.touched[user])
                sequence[position] = histories.items + 1 if only_last else self._disguised(int(sequence[position]))
        return sequence, positions, positive, negative

    def _disguised(self, item: int) -> int:
        """The mask in 80 of 100 cases, a random item in 10, the item itself in 10."""
        chance = random.random()
        if chance < 0.8:
            return self.histories.items + 1
        return random.randint(1, self.histories.items) if chance < 0.9 else item


class Candidates(Dataset[Row]):
    """Evaluation: the target and negatives drawn anew whenever a user is read."""

    def __init__(self, histories: Histories, targets: list[int], sample: int) -> None:
        self.histories = histories
        self.targets = targets
        self.sample = sample

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, user: int) -> Row:
        """Sequence and positions (max_length,), candidates (1 + sample,), the target first."""
        histories = self.histories
        sequence, positions = padded(histories.sequences[user], histories.max_length)
        candidates = np.zeros(1 + self.sample, dtype=np.int64)
        candidates[0] = self.targets[user]
        for position in range(self.sample):
            candidates[position + 1] = untouched(histories.items, histories.touched[user])
        return sequence, positions, candidates


def training_set(head: Head, histories: Histories) -> NextItems | LastItem | MaskedItems:
    """The rows from which a head is trained."""
    kinds: dict[Head, type[NextItems | LastItem | MaskedItems]]
    kinds = {"sasrec": NextItems, "gru4rec": LastItem, "bert4rec": MaskedItems}
    return kinds[head](histories)
