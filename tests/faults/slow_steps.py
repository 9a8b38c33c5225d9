"""Steps that take their time, so that several processes want the same at once. Loaded as a plug-in file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Ranker, Vectors
from reaemb_bench.core.component import Context, Progress, Randomness, Step


class Embed(Step):
    """Vectors drawn at random, after a while."""

    log: str = ""
    """File that gets a line whenever this runs."""

    randomness: ClassVar[Randomness] = "embedder"

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, 2) from the step's seed."""
        _begin(self.log, context)
        return Vectors(np.random.default_rng(context.seed).normal(size=(corpus.items, 2)).astype(np.float32))


class Fit(Step):
    """A recommender that remembers its rate, after a while."""

    rate: float = 0.1
    """How fast it learns."""
    log: str = ""
    """File that gets a line whenever this runs."""

    randomness: ClassVar[Randomness] = "recommender"

    def run(self, corpus: Corpus, vectors: Vectors, context: Context) -> Ranker:
        """Its rate alone."""
        _begin(self.log, context)
        return Ranker({"use": "toy"}, {"rate": np.full(3, self.rate, dtype=np.float32)})


def _begin(log: str, context: Context) -> None:
    with Path(log).open("a", encoding="utf-8") as stream:
        stream.write("begun\n")
    for done in (1, 2):
        time.sleep(0.1)
        context.report(Progress(done, 2, "steps", {"loss": 1.0 / done}))
