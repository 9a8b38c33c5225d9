"""Train a sequential recommender on the training sequences, stopped early by the validation targets."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reaemb_bench.artifacts import Corpus, Ranker, Signal, Vectors
from reaemb_bench.component import Randomness, Sight, Step
from reaemb_bench.context import Context
from reaemb_bench.kinds import AnyHead, AnyItemTable, AnyObjective


class TrainSettings(Step):
    """The settings that all training of recommenders shares."""

    sees: ClassVar[Sight] = "validation"
    randomness: ClassVar[Randomness] = "recommender"

    head: AnyHead = "sasrec"  # type: ignore[assignment]
    """The recommender."""
    objective: AnyObjective = "cross-entropy"  # type: ignore[assignment]
    """The training loss."""
    batch_size: int = Field(default=128, ge=1)
    """Users a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's learning rate."""
    decay: bool = False
    """Whether the learning rate falls along a line, to 0 behind the last of `epochs`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Adam's L2 penalty."""
    epochs: int = Field(default=200, ge=1)
    """Most passes over the users."""
    patience: int = Field(default=10, ge=1)
    """Epochs without a better validation NDCG@10 after which training stops; the best epoch's weights are kept."""


class Train(TrainSettings):
    """Train a head over item vectors."""

    items: AnyItemTable = "frozen"  # type: ignore[assignment]
    """Where its item vectors come from."""

    def run(self, corpus: Corpus, signal: Signal, vectors: Vectors, context: Context) -> Ranker:
        """The recommender at its best epoch."""
        from reaemb_bench.heads.fitting import fit

        return fit(corpus, signal, vectors.values, self.items, self, context)


class TrainIds(TrainSettings):
    """Train a head over ids alone: the baseline that reads no text."""

    items: AnyItemTable = "ids"  # type: ignore[assignment]
    """Where its item vectors come from; a table that reads no vectors."""

    def run(self, corpus: Corpus, signal: Signal, context: Context) -> Ranker:
        """The recommender at its best epoch."""
        from reaemb_bench.heads.fitting import fit

        return fit(corpus, signal, None, self.items, self, context)
