"""The paper's contrastive loss, whose targets are the views' own similarities. Shapes: n items, d width."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from reaemb_bench.core.component import Component


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
        targets = torch.softmax((first @ first.T + second @ second.T) / (2 * temperature), dim=1)
        return (_cross_entropy(logits, targets) + _cross_entropy(logits.T, targets.T)) / 2


class SoftTargetDetached(Component):
    """`soft-target` with targets that carry no gradient and sum to 1 in both directions.

    The targets' similarities are symmetric, so a softmax by rows of the same matrix serves both directions.

    Inputs: two views (n, d) of the same n items and the temperature τ, a scalar tensor.
    Source: arXiv 2606.16703, Stage I, with its targets normalised and detached.

    Example: `lrcl.loss = "soft-target-detached"`
    """

    initial_temperature: float = Field(default=1.0, gt=0)
    """Temperature τ at the first step; it is learned from there."""

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""
        logits = first @ second.T / temperature
        with torch.no_grad():
            targets = torch.softmax((first @ first.T + second @ second.T) / (2 * temperature), dim=1)
        return (_cross_entropy(logits, targets) + _cross_entropy(logits.T, targets)) / 2


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
