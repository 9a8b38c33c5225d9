"""A recommender's training loss of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench import Component

if TYPE_CHECKING:
    from torch import Tensor


class Example(Component):
    """Bayesian personalised ranking (Rendle et al., UAI 2009): say here what yours optimises."""

    negatives: int = Field(default=1, ge=1)
    """Sampled negatives a position."""

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """outputs (p, hidden), targets (p,), vectors (items, hidden), negatives (p, k) -> scalar."""
        from torch.nn import functional

        assert negatives is not None
        positive = (outputs * vectors[targets]).sum(-1, keepdim=True)
        negative = (outputs.unsqueeze(1) * vectors[negatives]).sum(-1)
        return -functional.logsigmoid(positive - negative).mean()
