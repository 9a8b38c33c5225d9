"""Floors: methods that learn only counts, and the step that ranks them like trained recommenders."""

from __future__ import annotations

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


class Random(Component):
    """Score items at random: what a metric is worth when nothing is known.

    A score is a hash of the seed, the user's history and the item, so it does not depend on which users are scored
    together or in which order, and users with different histories get independent scores.
    """

    seed: int = 0
    """Chooses among equally random orders."""

    def fit(self, corpus: Corpus) -> RandomScorer:
        """Nothing is counted but the items."""
        return RandomScorer(self.seed, corpus.items)


@dataclass(frozen=True)
class RandomScorer:
    """seed: see `Random`. items: size of the catalogue."""

    seed: int
    items: int

    def scores(self, histories: Sequences) -> Float32:
        """(users, items), uniform in [0, 1) in steps of 2**-24."""
        seed = np.array([self.seed % 2**64], dtype=np.uint64)
        users = mix64(hash_sequences(histories) + mix64(seed)).astype(np.uint32)
        items = mix64(np.arange(self.items, dtype=np.uint64) + np.uint64(1)).astype(np.uint32)
        bits = mix32(users[:, None] ^ items[None, :])
        bits >>= np.uint32(8)
        scores: Float32 = bits.astype(np.float32)
        scores *= np.float32(2.0**-24)
        return scores


class Popularity(Component):
    """Score each item by its training interactions, the same for all users."""

    def fit(self, corpus: Corpus) -> PopularityScorer:
        """Count; held-out interactions are not in the corpus."""
        return PopularityScorer(corpus.popularity.astype(np.float32))


@dataclass(frozen=True)
class PopularityScorer:
    """counts: (items,) training interactions."""

    counts: Float32

    def scores(self, histories: Sequences) -> Float32:
        """(users, items): one row shown once per user, not copied."""
        return np.broadcast_to(self.counts, (histories.users, len(self.counts)))


Counts = Literal["binary", "all"]


class ItemKNN(Component):
    """Score each item by the sum of its cosine similarities to all items of the history.

    Items are compared by their columns of the user-item matrix of training interactions: co-occurrences over the
    product of the columns' norms. No item is similar to itself here. Source: Sarwar et al., WWW 2001, without a limit
    on neighbours.
    """

    last_only: ClassVar[bool] = False
    """Whether only the last item of a history is compared."""
    counts: Counts = "all"
    """Entries of the user-item matrix and of the scored history: `binary`, whether a user has an item, is the field's
    usual choice and stronger on data with repeated interactions; `all` counts every interaction."""

    def fit(self, corpus: Corpus) -> ItemKNNScorer:
        """Count co-occurrences in the training sequences."""
        return ItemKNNScorer(cosines(corpus, self.counts), self.last_only, self.counts)


class LastItemKNN(ItemKNN):
    """Score each item by its cosine similarity to the last item of the history, and to no other.

    The difference to `item-knn` is the worth of the older history; a method that beats both has learned more than
    pairs.
    """

    last_only: ClassVar[bool] = True


def cosines(corpus: Corpus, counts: Counts = "all") -> csr_array:
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


@dataclass(frozen=True)
class ItemKNNScorer:
    """similarity: (items, items), symmetric, float32. last_only: whether only the last item of a history counts."""

    similarity: csr_array
    last_only: bool
    counts: Counts

    def scores(self, histories: Sequences) -> Float32:
        """(users, items); 0 for items that never met the history, and for all items if there is no history."""
        from scipy.sparse import csr_array

        read = distinct(histories) if self.counts == "binary" and not self.last_only else histories
        items, offsets = read.items, read.offsets
        if self.last_only:
            has_history = histories.lengths > 0
            items = items[offsets[1:][has_history] - 1]
            offsets = np.concatenate([[0], np.cumsum(has_history)])
        ones = np.ones(len(items), dtype=np.float32)
        shape = (histories.users, self.similarity.shape[0])
        scores: Float32 = (csr_array((ones, items, offsets), shape=shape) @ self.similarity).toarray()
        return scores


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
