"""The paper's contrastive loss, whose targets are the views' own similarities. Shapes: n items, d width."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from reaemb_bench.core.component import Component
from reaemb_bench.encoder.similarity import Similarity, comparable


class SoftTarget(Component):
    """Cross-entropy between two views' similarities and soft targets, as the authors' code computes it.

    logits = X·Yᵀ/τ and targets = softmax of (X·Xᵀ + Y·Yᵀ)/(2τ) by rows; the loss is the mean over rows of
    ½ [CE(logits, targets) + CE(logitsᵀ, targetsᵀ)], CE(p, t) = -Σ t·log softmax(p). Vectors are not normalised. The
    gradient flows through the targets, and the columns of targetsᵀ do not sum to 1: `soft-target-detached` differs
    in these two points, `info-nce` has one-hot targets.

    Inputs: two views (n, d) of the same n items and the temperature τ, a scalar tensor.
    Source: arXiv 2606.16703, Stage I (LRCL).

    Example: `lrcl.loss = "soft-target"`
    """

    initial_temperature: float = Field(default=1.0, gt=0)
    """Temperature τ at the first step; it is learned from there."""

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""
        logits = first @ second.T / temperature
        targets = self.targets(first, second, temperature)
        return (_cross_entropy(logits, targets) + _cross_entropy(logits.T, targets.T)) / 2

    def targets(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """The soft targets (n, n) of the rows."""
        return torch.softmax((first @ first.T + second @ second.T) / (2 * temperature), dim=1)


class SoftTargetDetached(Component):
    """`soft-target` with targets that carry no gradient and sum to 1 in both directions.

    The targets' similarities are symmetric, so a softmax by rows of the same matrix serves both directions.

    Inputs: two views (n, d) of the same n items and the temperature τ, a scalar tensor.
    If an item's own entry is not the largest of its targets, they teach something else: see `own_first` in the log.

    Source: arXiv 2606.16703, Stage I, with its targets normalised and detached.

    Example: `lrcl.loss = {use = "soft-target-detached", similarity = "centred-cosine", initial_temperature = 0.05}`
    """

    initial_temperature: float = Field(default=1.0, gt=0)
    """Temperature τ at the first step; it is learned from there."""
    similarity: Similarity = "inner-product"
    """What views are compared by. Inner products read the mean vector of all items; centred cosines do not, and need a
    temperature of about 0.05."""

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""
        with torch.no_grad():
            targets = self.targets(first, second, temperature)
        first, second = comparable(torch.stack([first, second]), self.similarity)
        logits = first @ second.T / temperature
        return (_cross_entropy(logits, targets) + _cross_entropy(logits.T, targets)) / 2

    def targets(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """The soft targets (n, n) of the rows, and of the columns too."""
        first, second = comparable(torch.stack([first, second]), self.similarity)
        return torch.softmax((first @ first.T + second @ second.T) / (2 * temperature), dim=1)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
