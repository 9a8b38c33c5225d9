"""gSASRec's calibrated binary cross-entropy (Petrov & Macdonald, RecSys 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench.component import Component

if TYPE_CHECKING:
    from torch import Tensor


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
