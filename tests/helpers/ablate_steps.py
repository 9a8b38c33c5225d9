"""Steps whose ranks depend on every step before them, for tests of ablations. Loaded as a plug-in file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Ranker, Ranks, TestTargets, Vectors
from reaemb_bench.core.component import DataAccess, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.kinds import AnyReducer


class Polish(Step):
    """Scales vectors, then reduces them."""

    log: str
    """File that gets a line whenever this runs."""
    factor: float = 2.0
    """What every value is multiplied with; 0 is refused."""
    reducer: AnyReducer = "none"  # type: ignore[assignment]
    """What comes afterwards."""

    def run(self, vectors: Vectors) -> Vectors:
        """(items, width)."""
        with Path(self.log).open("a", encoding="utf-8") as stream:
            stream.write(f"polish {self.factor:g}\n")
        if self.factor < 0:
            raise RuntimeError("out of polish")
        if self.factor == 0:
            raise UserError("nothing would be left of the vectors; raise factor")
        return self.reducer.reduce(Vectors(vectors.values * np.float32(self.factor)))


class Peeking(Polish):
    """The same, but it looks at held-out data on purpose."""

    leaks: ClassVar[bool] = True
    data_access: ClassVar[DataAccess] = "test"


class Score(Step):
    """Ranks that follow from the vectors and the recommender."""

    data_access: ClassVar[DataAccess] = "test"

    every: int = 1
    """Judge every so many users alone."""

    def run(self, corpus: Corpus, test_targets: TestTargets, ranker: Ranker, vectors: Vectors) -> Ranks:
        """User u's target stands u places, and as many as the inputs add up to, from the top."""
        users = test_targets.users[:: self.every]
        shift = int(100 * abs(float(vectors.values.sum())) + 100 * float(ranker.tensors["rate"].sum()))
        zeros = np.zeros(len(users), dtype=np.int64)
        return Ranks(
            users=users,
            targets=test_targets.targets[users],
            better=(users * 5 + shift) % 12,
            tied=zeros,
            sampled_better=zeros - 1,
            sampled_tied=zeros,
            popularity=corpus.popularity[test_targets.targets[users]],
            history=test_targets.histories.lengths[users],
            catalogue=zeros + corpus.items,
        )
