"""Recommend what is bought together with the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reaemb_bench.artifacts import Corpus, Float32, Float64, Sequences
from reaemb_bench.component import Component

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class ItemKNN(Component):
    """Score each item by the sum of its cosine similarities to all items of the history.

    Items are compared by their columns of the user-item matrix of training counts: co-occurrences over the product
    of the columns' norms. Nothing is similar to itself here, and an item that stands twice in a history counts twice.
    Source: Sarwar et al., WWW 2001, without a limit on neighbours.
    """

    def fit(self, corpus: Corpus) -> ItemKNNScorer:
        """Count co-occurrences in the training sequences."""
        return ItemKNNScorer(cosines(corpus))


class LastItemKNN(Component):
    """Score each item by its cosine similarity to the last item of the history, and to no other: as `item-knn` does.

    What it lacks against `item-knn` is the worth of the older history; what beats both has learned more than pairs.
    """

    def fit(self, corpus: Corpus) -> LastItemKNNScorer:
        """Count co-occurrences in the training sequences."""
        return LastItemKNNScorer(cosines(corpus))


def cosines(corpus: Corpus) -> csr_array:
    """Cosines (items, items), symmetric, float32, of the columns of the user-item matrix; the diagonal is empty."""
    from reaemb_bench.data.cooccurrence import cooccurrence

    pairs = cooccurrence(corpus.training, corpus.items).astype(np.float64).tocoo()
    inverse = 1.0 / np.maximum(_column_norms(corpus.training, corpus.items), 1.0)
    pairs.data *= inverse[pairs.row] * inverse[pairs.col]
    return pairs.astype(np.float32).tocsr()


@dataclass(frozen=True)
class ItemKNNScorer:
    """similarity: (items, items), symmetric, float32."""

    similarity: csr_array

    def scores(self, histories: Sequences) -> Float32:
        """(users, items); 0 for items that met nothing of the history, and so for all where there is no history."""
        return _summed(histories, self.similarity)


@dataclass(frozen=True)
class LastItemKNNScorer:
    """similarity: (items, items), symmetric, float32."""

    similarity: csr_array

    def scores(self, histories: Sequences) -> Float32:
        """(users, items); 0 for items that never met the last one, and so for all where there is no history."""
        some = histories.lengths > 0
        last = histories.items[histories.offsets[1:][some] - 1]
        return _summed(Sequences(last, np.concatenate([[0], np.cumsum(some)])), self.similarity)


def _summed(histories: Sequences, similarity: csr_array) -> Float32:
    """Sums (users, items) of the rows of `similarity` that belong to each history's items."""
    from scipy.sparse import csr_array

    ones = np.ones(len(histories.items), dtype=np.float32)
    shape = (histories.users, similarity.shape[0])
    summed: Float32 = (csr_array((ones, histories.items, histories.offsets), shape=shape) @ similarity).toarray()
    return summed


def _column_norms(sequences: Sequences, items: int) -> Float64:
    """Euclidean norms (items,) of the columns of the user-item matrix of counts."""
    places, counts = np.unique(sequences.owners * items + sequences.items, return_counts=True)
    norms: Float64 = np.sqrt(np.bincount(places % items, weights=counts.astype(np.float64) ** 2, minlength=items))
    return norms
