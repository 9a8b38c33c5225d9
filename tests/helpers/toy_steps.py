"""Steps that compute next to nothing, for tests of everything around steps. Loaded as a plug-in file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Ranker, Ranks, Sequences, TestTargets, ValidationTargets, Vectors
from reaemb_bench.core.component import Component, Context, DataAccess, Progress, Randomness, Step


class Prepare(Step):
    """Six users over twelve items."""

    users: int = 6
    """Number of users."""
    log: str = ""
    """File that gets a line whenever this runs."""

    randomness: ClassVar[Randomness] = "data"

    def run(self, context: Context) -> tuple[Corpus, ValidationTargets, TestTargets]:
        """Three training items a user."""
        _write(self.log, "prepare")
        users, items = self.users, 12
        training = Sequences(
            np.arange(3 * users, dtype=np.int32) % items, np.arange(0, 3 * users + 1, 3, dtype=np.int64)
        )
        everyone = np.arange(users, dtype=np.int64)
        candidates = np.zeros((users, 0), dtype=np.int32)
        targets = (everyone % items).astype(np.int32)
        keys = tuple(f"i{item}" for item in range(items))
        corpus = Corpus("toys", training, keys, tuple(f"u{user}" for user in everyone), "Describe:", keys, keys)
        return (
            corpus,
            ValidationTargets(everyone, targets, candidates),
            TestTargets(everyone, targets, candidates, training),
        )


class Embed(Step):
    """Vectors drawn at random."""

    width: int = 2
    """Length of each vector."""

    randomness: ClassVar[Randomness] = "embedder"

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, width) from the step's seed."""
        drawn = np.random.default_rng(context.seed).normal(size=(corpus.items, self.width))
        return Vectors(drawn.astype(np.float32))


class Fit(Step):
    """A recommender that remembers its rate."""

    rate: float = 0.1
    """How fast it learns."""
    stop: str = ""
    """How it fails: `error`, `interrupt`, or not at all."""
    log: str = ""
    """File that gets a line whenever this runs."""

    data_access: ClassVar[DataAccess] = "validation"
    randomness: ClassVar[Randomness] = "recommender"

    def run(self, corpus: Corpus, validation_targets: ValidationTargets, vectors: Vectors, context: Context) -> Ranker:
        """Two ticks, one fact."""
        _write(self.log, "fit")
        for done in (1, 2):
            context.report(Progress(done, 2, "steps", {"loss": self.rate / done, "ndcg@10": 0.5}))
        context.note({"parameters": 7, "optimizer": "toy"})
        if self.stop == "error":
            raise RuntimeError("out of toys")
        if self.stop == "interrupt":
            raise KeyboardInterrupt
        return Ranker({"use": "toy"}, {"rate": np.full(3, self.rate + context.seed % 7, dtype=np.float32)})


class Judge(Step):
    """Ranks that follow from the user's number."""

    data_access: ClassVar[DataAccess] = "test"

    def run(self, corpus: Corpus, test_targets: TestTargets, ranker: Ranker) -> Ranks:
        """User u's target comes after u other items."""
        users = test_targets.users
        zeros = np.zeros(len(users), dtype=np.int64)
        histories = test_targets.histories
        seen = [set(histories.items[slice(*histories.offsets[user : user + 2])].tolist()) for user in users]
        others = [len(items - {target}) for items, target in zip(seen, test_targets.targets.tolist(), strict=True)]
        return Ranks(
            users=users,
            targets=test_targets.targets,
            better=users,
            tied=zeros,
            sampled_better=users,
            sampled_tied=zeros,
            popularity=corpus.popularity[test_targets.targets],
            history=test_targets.histories.lengths[users],
            catalogue=corpus.items - np.array(others, dtype=np.int64),
        )


class Peek(Step):
    """Asks for test targets without being a judge."""

    def run(self, corpus: Corpus, test_targets: TestTargets) -> Vectors:
        """Never called."""
        raise AssertionError


class PeekAtSignal(Step):
    """Asks for validation targets without saying so."""

    def run(self, corpus: Corpus, validation_targets: ValidationTargets) -> Vectors:
        """Never called."""
        raise AssertionError


class Leaky(Step):
    """Asks for test targets on purpose."""

    leaks: ClassVar[bool] = True

    def run(self, corpus: Corpus, test_targets: TestTargets) -> Vectors:
        """Vectors of the targets."""
        return Vectors(np.ones((corpus.items, 2), dtype=np.float32))


class LearnFromRanks(Step):
    """Reads what the judge said."""

    def run(self, ranks: Ranks) -> Vectors:
        """Never called."""
        raise AssertionError


class Flat(Component):
    """A reducer of a user's own."""

    factor: float = 1.0
    """What every value is multiplied with."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """The vectors, scaled."""
        return Vectors(vectors.values * np.float32(self.factor))


def _write(log: str, line: str) -> None:
    if log:
        with Path(log).open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
