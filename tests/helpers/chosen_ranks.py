"""Steps whose ranks are chosen, for tests of what is made of remembered ranks. Loaded as a plug-in file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Floors, Ranks, TestTargets, Vectors
from reaemb_bench.core.component import Context, DataAccess, Randomness, Step

HERE = Path(__file__)
TOYS = HERE.parent / "toy_steps.py"
USERS = 200
POPULARITY = (0, 3, 10, 50, 150)


def ranks(mean: float, seed: int, test_targets: TestTargets, offset: int = 0) -> Ranks:
    """Places drawn around a mean; popularity and histories of many sizes."""
    users = test_targets.users
    none = np.zeros(len(users), dtype=np.int64)
    return Ranks(
        users=users,
        targets=test_targets.targets,
        better=np.random.default_rng(seed).geometric(1 / mean, len(users)) - 1,
        tied=none,
        sampled_better=none - 1,
        sampled_tied=none,
        popularity=np.array(POPULARITY)[users % len(POPULARITY)] + offset,
        history=users % 20 + 5,
        catalogue=none + 500,
    )


class Placed(Step):
    """A judge of a made-up recommender."""

    mean: float = 5.0
    """Mean place of the targets."""
    offset: int = 0
    """Further training interactions of each target."""
    like_floors: bool = False
    """Whether popularity, histories and catalogue are those of the data, so that real floors may stand in the table."""

    data_access: ClassVar[DataAccess] = "test"
    randomness: ClassVar[Randomness] = "recommender"

    def run(self, corpus: Corpus, test_targets: TestTargets, context: Context) -> Ranks:
        """Geometric places from the step's seed."""
        drawn = ranks(self.mean, context.seed, test_targets, self.offset)
        return on_the_data(drawn, corpus, test_targets) if self.like_floors else drawn


def on_the_data(drawn: Ranks, corpus: Corpus, test_targets: TestTargets) -> Ranks:
    """The same ranks with the popularity, histories and catalogue that the data have."""
    users, targets, histories = test_targets.users, test_targets.targets, test_targets.histories
    seen = [set(histories.items[slice(*histories.offsets[user : user + 2])].tolist()) for user in users]
    others = [len(items - {target}) for items, target in zip(seen, targets.tolist(), strict=True)]
    return replace(
        drawn,
        popularity=corpus.popularity[targets],
        history=histories.lengths[users],
        catalogue=corpus.items - np.array(others, dtype=np.int64),
    )


class Counted(Step):
    """Floors of made-up ranks."""

    like_floors: bool = False
    """As in `Placed`."""

    data_access: ClassVar[DataAccess] = "test"

    def run(self, corpus: Corpus, test_targets: TestTargets) -> Floors:
        """Two floors, one far worse than the other."""
        floors = {"random": ranks(90, 1, test_targets), "popularity": ranks(30, 2, test_targets)}
        if self.like_floors:
            floors = {name: on_the_data(drawn, corpus, test_targets) for name, drawn in floors.items()}
        return Floors(floors)


class Peek(Step):
    """Looks at test targets on purpose."""

    data_access: ClassVar[DataAccess] = "test"
    leaks: ClassVar[bool] = True

    def run(self, corpus: Corpus, test_targets: TestTargets) -> Vectors:
        """Nothing that anybody needs."""
        return Vectors(np.ones((corpus.items, 2), dtype=np.float32))
