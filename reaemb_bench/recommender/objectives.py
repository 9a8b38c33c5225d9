"""Mean softmax cross-entropy over all items, a chunk of positions at a time."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from reaemb_bench.core.component import Component

CHUNK_BYTES = 16 * 2**20
"""Logits that exist at any moment; about what a processor's cache holds."""


def catalogue_cross_entropy(outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
    """Mean over positions of -log softmax(outputs · vectorsᵀ)[target].

    outputs (positions, hidden); targets (positions,); vectors (items, hidden). Loss and gradients of a chunk are
    computed together, so logits (positions, items) never exist at once and are computed once, not twice.
    """
    loss: Tensor = _CatalogueCrossEntropy.apply(outputs, targets, vectors)  # type: ignore[no-untyped-call]
    return loss


class _CatalogueCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, targets: Tensor, vectors: Tensor) -> Tensor:
        """The loss; gradients wait in ctx."""
        rows = max(1, CHUNK_BYTES // (len(vectors) * outputs.element_size()))
        of_outputs, of_vectors = torch.empty_like(outputs), torch.zeros_like(vectors)
        loss = outputs.new_zeros(())
        for chunk in range(0, len(outputs), rows):
            part = slice(chunk, chunk + rows)
            loss += _chunk(outputs[part], targets[part], vectors, len(outputs), of_outputs[part], of_vectors)
        ctx.save_for_backward(of_outputs, of_vectors)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, Tensor]:
        """Scale what forward computed."""
        of_outputs, of_vectors = ctx.saved_tensors
        return of_outputs * upstream[0], None, of_vectors * upstream[0]


def _chunk(
    outputs: Tensor, targets: Tensor, vectors: Tensor, count: int, of_outputs: Tensor, of_vectors: Tensor
) -> Tensor:
    """The chunk's share of the loss; writes `of_outputs`, adds to `of_vectors`."""
    logits = torch.mm(outputs, vectors.T)
    wanted = logits.gather(1, targets[:, None])
    highest = logits.amax(dim=1, keepdim=True)
    weights = logits.sub_(highest).exp_()
    total = weights.sum(dim=1, keepdim=True)
    share = weights.mul_(1 / (total * count))
    share.scatter_add_(1, targets[:, None], torch.full_like(wanted, -1 / count))
    torch.mm(share, vectors, out=of_outputs)
    of_vectors.addmm_(share.T, outputs)
    return (total.log() + highest - wanted).sum() / count


# Softmax cross-entropy over the whole catalogue.


class CrossEntropy(Component):
    """Every item is a negative; with it SASRec beats BERT4Rec (Klenitskiy & Vasilev, RecSys 2023)."""

    negatives: int = 0
    """Sampled negatives a position; none, for the loss reads all items."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean over positions of -log softmax(outputs · vectorsᵀ)[target]; shapes as in `bce`."""

        return catalogue_cross_entropy(outputs, targets, vectors)


# Softmax cross-entropy over the target and sampled negatives.


class SampledSoftmax(Component):
    """`cross-entropy` for catalogues that are too large for it: its softmax is estimated from sampled negatives.

    Negatives are uniform, so the usual correction by their log-probability is the same for all of them: each stands
    for its share of the catalogue (Jean et al., ACL 2015).
    """

    negatives: int = Field(default=256, ge=1)
    """Negatives a position, uniform among the items that the user never touched."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean over positions of -log softmax over target and corrected negatives; shapes as in `bce`."""
        import math

        import torch
        from torch.nn import functional as F

        assert negatives is not None
        positive = (outputs * F.embedding(targets, vectors)).sum(-1, keepdim=True)
        negative = (F.embedding(negatives, vectors) @ outputs[:, :, None]).squeeze(-1)
        stands_for = math.log(max(len(vectors) - 1, 1) / negatives.shape[1])
        logits = torch.cat([positive, negative + stands_for], dim=1)
        loss: Tensor = (logits.logsumexp(dim=1) - positive.squeeze(1)).mean()
        return loss


# Binary cross-entropy against sampled negatives.


class BinaryCrossEntropy(Component):
    """The target's logit is pushed up, those of sampled negatives down (SASRec, eq. 6).

    Cheap, and overconfident with few negatives (Petrov & Macdonald 2023); `cross-entropy` is the stronger choice.
    """

    negatives: int = Field(default=1, ge=1)
    """Negatives a position, uniform among the items that the user never touched."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean over positions of BCE(target, 1) + mean over its negatives of BCE(negative, 0).

        outputs (positions, hidden); targets (positions,); vectors (items, hidden); negatives (positions, count).
        """
        from torch.nn import functional as F

        assert negatives is not None
        positive = (outputs * F.embedding(targets, vectors)).sum(-1)
        negative = (F.embedding(negatives, vectors) @ outputs[:, :, None]).squeeze(-1)
        # softplus(-x) is BCE(x, 1) and softplus(x) is BCE(x, 0).
        loss: Tensor = F.softplus(-positive).mean() + F.softplus(negative).mean()
        return loss


# gSASRec's calibrated binary cross-entropy (Petrov & Macdonald, RecSys 2023).


class CalibratedBCE(Component):
    """BCE with many negatives whose target term is softened, so that probabilities are not overconfident (gBCE)."""

    negatives: int = Field(default=256, ge=1)
    """Negatives a position, uniform among the items that the user never touched."""
    calibration: float = Field(default=0.75, ge=0, le=1)
    """t of the paper: 0 is plain BCE, 1 undoes the bias of sampling in full."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean over positions and their 1 + k terms of -beta · log s(target) - sum of log(1 - s(negative)).

        s is the logistic function, beta = a · (t · (1 - 1/a) + 1/a) with the sampling rate a = k / (items - 1), eq. 9;
        shapes as in `bce`.
        """
        from torch.nn import functional as F

        assert negatives is not None
        count = negatives.shape[1]
        rate = min(1.0, count / max(len(vectors) - 1, 1))
        beta = rate * (self.calibration * (1 - 1 / rate) + 1 / rate)
        positive = (outputs * F.embedding(targets, vectors)).sum(-1)
        negative = (F.embedding(negatives, vectors) @ outputs[:, :, None]).squeeze(-1)
        loss: Tensor = (beta * F.softplus(-positive) + F.softplus(negative).sum(-1)).mean() / (1 + count)
        return loss
