"""Mean softmax cross-entropy over all items, a chunk of positions at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

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
