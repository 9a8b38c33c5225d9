"""Softmax cross-entropy over the whole catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaemb_bench.component import Component

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy(Component):
    """Every item is a negative; with it SASRec beats BERT4Rec (Klenitskiy & Vasilev, RecSys 2023)."""

    negatives: int = 0
    """Sampled negatives a position; none, for the loss reads all items."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean over positions of -log softmax(outputs · vectorsᵀ)[target]; shapes as in `bce`."""
        from reaemb_bench.objectives.softmax import catalogue_cross_entropy

        return catalogue_cross_entropy(outputs, targets, vectors)
