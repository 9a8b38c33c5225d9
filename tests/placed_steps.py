"""Steps whose ranks are chosen, for tests of what is made of remembered ranks. Loaded as a plug-in file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Floors, Holdout, Ranks, Vectors
from reaemb_bench.core.component import Context, Randomness, Sight, Step

HERE = Path(__file__)
TOYS = HERE.parent / "toy_steps.py"
USERS = 200
POPULARITY = (0, 3, 10, 50, 150)


def ranks(mean: float, seed: int, holdout: Holdout, offset: int = 0) -> Ranks:
    """Places drawn around a mean; popularity and histories of many sizes."""
    users = holdout.users
    none = np.zeros(len(users), dtype=np.int64)
    return Ranks(
        users=users,
        targets=holdout.targets,
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

    sees: ClassVar[Sight] = "test"
    randomness: ClassVar[Randomness] = "recommender"

    def run(self, corpus: Corpus, holdout: Holdout, context: Context) -> Ranks:
        """Geometric places from the step's seed."""
        return ranks(self.mean, context.seed, holdout, self.offset)


class Counted(Step):
    """Floors of made-up ranks."""

    sees: ClassVar[Sight] = "test"

    def run(self, corpus: Corpus, holdout: Holdout) -> Floors:
        """Two floors, one far worse than the other."""
        return Floors({"random": ranks(90, 1, holdout), "popularity": ranks(30, 2, holdout)})


class Peek(Step):
    """Looks at test targets on purpose."""

    sees: ClassVar[Sight] = "test"
    leaks: ClassVar[bool] = True

    def run(self, corpus: Corpus, holdout: Holdout) -> Vectors:
        """Nothing that anybody needs."""
        return Vectors(np.ones((corpus.items, 2), dtype=np.float32))
