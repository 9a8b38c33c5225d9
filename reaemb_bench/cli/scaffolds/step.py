"""A step of your own."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from reaemb_bench import Context, Corpus, Randomness, Step, Vectors


class Example(Step):
    """Item vectors drawn at random: say here where yours come from.

    The types of the arguments of `run` say what it reads, the type after the arrow what it returns.
    """

    width: int = Field(default=64, ge=1)
    """Length of each vector."""

    randomness: ClassVar[Randomness] = "embedder"

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, width), from the texts of the corpus or anything else; here, from the step's seed."""
        drawn = np.random.default_rng(context.seed).normal(size=(corpus.items, self.width))
        return Vectors(drawn.astype(np.float32))
