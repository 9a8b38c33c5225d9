"""Floors: methods that learn only counts, and the step that ranks them like trained recommenders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Float32, Floors, Ranks, Sequences, TestTargets
from reaemb_bench.core.component import Component, Context, DataAccess, Progress, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.data.cooccurrence import cooccurrence
from reaemb_bench.evaluation.comparability import equal_scores
from reaemb_bench.evaluation.ranking import hash_sequences, mix32, mix64, rank_targets
from reaemb_bench.recommender.kinds import ManyFloors

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True)
class ScoreFunction:
    """A scorer that is one function, from histories to scores (users, items)."""

    function: Callable[[Sequences], Float32]

    def scores(self, histories: Sequences) -> Float32:
        """(users, items), higher is better."""
        return self.function(histories)


class Random(Component):
    """Score items at random: what a metric is worth when nothing is known.

    A score is a hash of the seed, the user's history and the item, so it does not depend on which users are scored
    together or in which order, and users with different histories get independent scores.
    """

    seed: int = 0
    """Chooses among equally random orders."""

    def fit(self, corpus: Corpus) -> ScoreFunction:
        """Scores uniform in [0, 1) in steps of 2**-24; nothing is counted but the items."""
        seed = mix64(np.array([self.seed % 2**64], dtype=np.uint64))
        items = mix64(np.arange(corpus.items, dtype=np.uint64) + np.uint64(1)).astype(np.uint32)

        def scores(histories: Sequences) -> Float32:
            users = mix64(hash_sequences(histories) + seed).astype(np.uint32)
            bits = mix32(users[:, None] ^ items[None, :])
            bits >>= np.uint32(8)
            uniform: Float32 = bits.astype(np.float32)
            uniform *= np.float32(2.0**-24)
            return uniform

        return ScoreFunction(scores)


class Popularity(Component):
    """Score each item by its training interactions, the same for all users."""

    def fit(self, corpus: Corpus) -> ScoreFunction:
        """Counts of training interactions: one row shown once per user, not copied."""
        counts = corpus.popularity.astype(np.float32)
        return ScoreFunction(lambda histories: np.broadcast_to(counts, (histories.users, len(counts))))


Counts = Literal["binary", "all"]


class ItemKNN(Component):
    """Score each item by the sum of its cosine similarities to all items of the history.

    Items are compared by their columns of the user-item matrix of training interactions: co-occurrences over the
    product of the columns' norms. No item is similar to itself here. Source: Sarwar et al., WWW 2001, without a limit
    on neighbours.
    """

    version: ClassVar[int] = 2
    last_only: ClassVar[bool] = False
    """Whether only the last item of a history is compared."""
    counts: Counts = "binary"
    """Entries of the user-item matrix and of the scored history: `binary`, whether a user has an item, is the field's
    usual choice and the stronger one where interactions are repeated; `all` counts every interaction."""

    def fit(self, corpus: Corpus) -> ScoreFunction:
        """Count co-occurrences in the training sequences.

        Scores are 0 for items that never met the history, and for all items if there is no history.
        """
        from scipy.sparse import csr_array

        similarity = cosines(corpus, self.counts)

        def scores(histories: Sequences) -> Float32:
            read = distinct(histories) if self.counts == "binary" and not self.last_only else histories
            items, offsets = read.items, read.offsets
            if self.last_only:
                has_history = histories.lengths > 0
                items = items[offsets[1:][has_history] - 1]
                offsets = np.concatenate([[0], np.cumsum(has_history)])
            counted = csr_array(
                (np.ones(len(items), np.float32), items, offsets), shape=(histories.users, corpus.items)
            )
            dense: Float32 = (counted @ similarity).toarray()
            return dense

        return ScoreFunction(scores)


class LastItemKNN(ItemKNN):
    """Score each item by its cosine similarity to the last item of the history, and to no other.

    The difference to `item-knn` is the worth of the older history; a method that beats both has learned more than
    pairs.
    """

    last_only: ClassVar[bool] = True


def cosines(corpus: Corpus, counts: Counts = "binary") -> csr_array:
    """Cosines (items, items), symmetric, float32, of the columns of the user-item matrix; the diagonal is empty."""
    training = distinct(corpus.training) if counts == "binary" else corpus.training
    pairs = cooccurrence(training, corpus.items).astype(np.float64).tocoo()
    cells, times = np.unique(training.owners * corpus.items + training.items, return_counts=True)
    squares = np.bincount(cells % corpus.items, weights=times.astype(np.float64) ** 2, minlength=corpus.items)
    inverse = 1.0 / np.maximum(np.sqrt(squares), 1.0)
    pairs.data *= inverse[pairs.row] * inverse[pairs.col]
    return pairs.astype(np.float32).tocsr()


def distinct(sequences: Sequences) -> Sequences:
    """Each user's items once, in the order of their numbers."""
    width = int(sequences.items.max(initial=0)) + 1
    owners, items = np.divmod(np.unique(sequences.owners * width + sequences.items), width)
    lengths = np.bincount(owners, minlength=sequences.users)
    return Sequences(items.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


class RankFloors(Step):
    """Rank each user's test target by floors: random order, popularity, co-occurrence with the history or its end."""

    data_access: ClassVar[DataAccess] = "test"

    floors: ManyFloors = cast("ManyFloors", ("random", "popularity", "item-knn", "last-item-knn"))
    """The methods, each named once."""
    top: int = Field(default=10, ge=0)
    """Length of the lists of recommended items that are kept, for coverage, Gini index and the like; 0 keeps none."""

    def run(self, corpus: Corpus, test_targets: TestTargets, context: Context) -> Floors:
        """Ranks of each floor. Raises UserError if two have the same name or a score is not finite."""
        by_name: dict[str, Ranks] = {}
        for number, floor in enumerate(self.floors):
            name = cast("Component", floor).use
            if name in by_name:
                raise UserError(f"the floor '{name}' is named twice; a table could not tell its two rows apart")

            def report(progress: Progress, before: int = number) -> None:
                total = progress.total * len(self.floors)
                context.report(Progress(before * progress.total + progress.done, total, progress.unit))

            by_name[name] = rank_targets(
                floor.fit(corpus),
                test_targets.histories,
                test_targets.users,
                test_targets.targets,
                test_targets.candidates,
                popularity=corpus.popularity,
                top=self.top,
                report=report,
            )
            context.note({f"{name}: users_with_equal_scores": equal_scores(by_name[name])})
        return Floors(by_name)
