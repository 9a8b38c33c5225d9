"""A split that leaves held-out items where other components find them, and components that look. A plug-in file."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Sequences, ValidationTargets, Vectors
from reaemb_bench.core.component import Component, DataAccess, Step
from reaemb_bench.data.cooccurrence import cooccurrence
from reaemb_bench.data.interactions import Interactions, SplitInteractions
from reaemb_bench.data.splits import LeaveLastTwo

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LEFT_BEHIND: dict[str, list[tuple[str, str]]] = {}
RUNS: list[int] = []


class Careless(Component):
    """Leave-last-two that leaves users and items of all held-out rows in memory."""

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """The division of `leave-last-two`."""
        split = LeaveLastTwo().apply(data, seed)
        for name in ("validation", "test"):
            rows = getattr(split, name)
            LEFT_BEHIND[name] = list(zip(rows["user"], rows["item"], strict=True))
        return split


def highest_holder(part: str, corpus: Corpus) -> np.ndarray:
    """(items,) the highest number of a user who has each item in the held-out part."""
    users, items = ({key: number for number, key in enumerate(keys)} for keys in (corpus.user_keys, corpus.item_keys))
    holders = np.zeros(corpus.items, dtype=np.float32)
    for user, item in LEFT_BEHIND[part]:
        holders[items[item]] = max(holders[items[item]], users[user] + 1)
    return holders


class Squint(Step):
    """Says that it sees training rows alone."""

    part: str = "test"
    """What it looks at all the same."""

    def run(self, corpus: Corpus) -> Vectors:
        """(items, 2)."""
        return Vectors(np.stack([highest_holder(self.part, corpus), np.ones(corpus.items)], axis=1).astype(np.float32))


class SquintWhileTuning(Step):
    """Says that it sees validation rows too."""

    data_access: ClassVar[DataAccess] = "validation"

    part: str = "test"
    """What it looks at."""

    def run(self, corpus: Corpus, validation_targets: ValidationTargets) -> Vectors:
        """(items, 2)."""
        return Vectors(np.stack([highest_holder(self.part, corpus), np.ones(corpus.items)], axis=1).astype(np.float32))


class Fickle(Step):
    """Gives something else each time."""

    def run(self, corpus: Corpus) -> Vectors:
        """(items, 2)."""
        RUNS.append(1)
        return Vectors(np.full((corpus.items, 2), len(RUNS), dtype=np.float32))


class KnowsTheTest(Component):
    """Co-occurrence on training sequences that test items were added to."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Counts (items, items)."""
        # Keys of the simulated shop are item0, item1, ...; which number is which does not matter here.
        added = np.array([int(item.removeprefix("item")) % items for _, item in LEFT_BEHIND["test"]], dtype=np.int32)
        return cooccurrence(sequences.followed_by(np.arange(len(added)), added), items)
