"""Recommend what is bought together with the history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reaemb_bench.artifacts import Corpus, Float32, Sequences
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
        from reaemb_bench.data.cooccurrence import cooccurrence

        pairs = cooccurrence(corpus.training, corpus.items).astype(np.float64).tocoo()
        inverse = 1.0 / np.maximum(_column_norms(corpus.training, corpus.items), 1.0)
        pairs.data *= inverse[pairs.row] * inverse[pairs.col]
        return ItemKNNScorer(pairs.astype(np.float32).tocsr())


@dataclass(frozen=True)
class ItemKNNScorer:
    """similarity: (items, items), symmetric, float32."""

    similarity: csr_array

    def scores(self, histories: Sequences) -> Float32:
        """(users, items); 0 for items that met nothing of the history, and so for all where there is no history."""
        from scipy.sparse import csr_array

        items = self.similarity.shape[0]
        ones = np.ones(len(histories.items), dtype=np.float32)
        touched = csr_array((ones, histories.items, histories.offsets), shape=(histories.users, items))
        scores: Float32 = (touched @ self.similarity).toarray()
        return scores


def _column_norms(sequences: Sequences, items: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Euclidean norms (items,) of the columns of the user-item matrix of counts."""
    places, counts = np.unique(sequences.owners * items + sequences.items, return_counts=True)
    norms: np.ndarray[tuple[int], np.dtype[np.float64]] = np.sqrt(
        np.bincount(places % items, weights=counts.astype(np.float64) ** 2, minlength=items)
    )
    return norms
