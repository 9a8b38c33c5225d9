"""Training losses of recommenders: cross-entropy over the catalogue, over a sample, and binary cross-entropies.

All take outputs (positions, hidden); targets (positions,); vectors (items, hidden); negatives (positions, count), and
return the mean over positions. A logit is the inner product of an output and an item's vector.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from reaemb_bench.core.component import Component

CHUNK_BYTES = 16 * 2**20
"""Logits that exist at any moment; about what a processor's cache holds."""
WHOLE = 32
"""Items per negative up to which one product with the whole catalogue is faster than copies of the negatives' vectors:
2 to 9 times on a CPU."""


class CrossEntropy(Component):
    """Softmax over the whole catalogue; with it SASRec beats BERT4Rec (Klenitskiy & Vasilev, RecSys 2023)."""

    negatives: int = 0
    """Sampled negatives per position: none, because the loss reads all items."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean of -log softmax(outputs · vectorsᵀ)[target]."""
        loss: Tensor = _CatalogueCrossEntropy.apply(outputs, targets, vectors)  # type: ignore[no-untyped-call]
        return loss


class TrainedCrossEntropy(Component):
    """Softmax over the items with a training interaction; all others are left out, as if they did not exist yet.

    Under `cross-entropy` an item without a training interaction is a negative at every position, so a network that
    reads texts learns to rank it last.
    """

    negatives: int = 0
    """Sampled negatives per position: none, because the loss reads all trained items."""
    trained_items: ClassVar[bool] = True
    """`fit` gives this loss the vectors of trained items alone."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean of -log softmax(outputs · vectorsᵀ)[target]; targets are rows of `vectors`."""
        loss: Tensor = _CatalogueCrossEntropy.apply(outputs, targets, vectors)  # type: ignore[no-untyped-call]
        return loss


class SampledSoftmax(Component):
    """`cross-entropy` for catalogues that are too large for it: its softmax is estimated from sampled negatives.

    Negatives are uniform, so the usual correction by their log-probability is the same for all of them: each weighs as
    its share of the catalogue (Jean et al., ACL 2015).
    """

    version: ClassVar[int] = 2

    negatives: int = Field(default=256, ge=1)
    """Negatives per position, uniform among the items that the user never touched."""
    corrected: bool = True
    """Whether negatives weigh as their share of the catalogue. Otherwise each weighs as much as the target, as in
    eSASRec."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean of -log softmax(target and negatives)[target]."""
        positive, negative = _logits(outputs, targets, vectors, negatives)
        correction = math.log(max(len(vectors) - 1, 1) / negative.shape[1]) if self.corrected else 0.0
        logits = torch.cat([positive[:, None], negative + correction], dim=1)
        loss: Tensor = (logits.logsumexp(dim=1) - positive).mean()
        return loss


class BinaryCrossEntropy(Component):
    """The target's logit is pushed up, those of sampled negatives down (SASRec, eq. 6).

    Cheap, and overconfident with few negatives (Petrov & Macdonald 2023); `cross-entropy` is the stronger choice.
    """

    version: ClassVar[int] = 2

    negatives: int = Field(default=1, ge=1)
    """Negatives per position, uniform among the items that the user never touched."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean of BCE(target, 1) + the mean over negatives of BCE(negative, 0)."""
        positive, negative = _logits(outputs, targets, vectors, negatives)
        # softplus(-x) is BCE(x, 1) and softplus(x) is BCE(x, 0).
        loss: Tensor = F.softplus(-positive).mean() + F.softplus(negative).mean()
        return loss


class CalibratedBCE(Component):
    """BCE with many negatives whose target term is softened, so that probabilities are not overconfident (gBCE).

    Source: gSASRec (Petrov & Macdonald, RecSys 2023).
    """

    version: ClassVar[int] = 2

    negatives: int = Field(default=256, ge=1)
    """Negatives per position, uniform among the items that the user never touched."""
    calibration: float = Field(default=0.75, ge=0, le=1)
    """t of the paper: 0 is plain BCE, 1 undoes the bias of sampling in full."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean, also over the 1 + k terms of a position, of -beta · log s(target) - sum of log(1 - s(negative)).

        s is the logistic function, beta = a · (t · (1 - 1/a) + 1/a) with the sampling rate a = k / (items - 1), eq. 9.
        """
        positive, negative = _logits(outputs, targets, vectors, negatives)
        count = negative.shape[1]
        rate = min(1.0, count / max(len(vectors) - 1, 1))
        beta = rate * (self.calibration * (1 - 1 / rate) + 1 / rate)
        loss: Tensor = (beta * F.softplus(-positive) + F.softplus(negative).sum(-1)).mean() / (1 + count)
        return loss


def _logits(outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits of targets (positions,) and of negatives (positions, count)."""
    assert negatives is not None
    positive = (outputs * F.embedding(targets, vectors)).sum(-1)
    if len(vectors) <= WHOLE * negatives.shape[1]:
        return positive, (outputs @ vectors.T).gather(1, negatives)
    return positive, (F.embedding(negatives, vectors) @ outputs[:, :, None]).squeeze(-1)


class _CatalogueCrossEntropy(torch.autograd.Function):
    """Loss and gradients of a chunk of positions are computed together, so logits (positions, items) never exist at
    once and are computed once, not twice.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """The loss; the gradients are computed with it and kept in ctx."""
        count = len(outputs)
        rows = max(1, CHUNK_BYTES // (len(vectors) * outputs.element_size()))
        of_outputs, of_vectors = torch.empty_like(outputs), torch.zeros_like(vectors)
        loss = outputs.new_zeros(())
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            own, target = outputs[part], targets[part, None]
            logits = torch.mm(own, vectors.T)
            wanted = logits.gather(1, target)
            highest = logits.amax(dim=1, keepdim=True)
            weights = logits.sub_(highest).exp_()
            total = weights.sum(dim=1, keepdim=True)
            gradient = weights.mul_(1 / (total * count))
            gradient.scatter_add_(1, target, torch.full_like(wanted, -1 / count))
            torch.mm(gradient, vectors, out=of_outputs[part])
            of_vectors.addmm_(gradient.T, own)
            loss += (total.log() + highest - wanted).sum() / count
        ctx.save_for_backward(of_outputs, of_vectors)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, Tensor]:
        """Scale what forward computed."""
        of_outputs, of_vectors = ctx.saved_tensors
        return of_outputs * upstream[0], None, of_vectors * upstream[0]
