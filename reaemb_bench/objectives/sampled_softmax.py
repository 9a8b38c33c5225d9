"""Softmax cross-entropy over the target and sampled negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench.component import Component

if TYPE_CHECKING:
    from torch import Tensor


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
