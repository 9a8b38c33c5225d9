"""Binary cross-entropy against sampled negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench.component import Component

if TYPE_CHECKING:
    from torch import Tensor


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
