"""A contrastive loss of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench import Component

if TYPE_CHECKING:
    from torch import Tensor


class Example(Component):
    """InfoNCE from the first view to the second: say here what yours computes, and its source."""

    initial_temperature: float = Field(default=0.05, gt=0)
    """Temperature at the first step; it is learned from there."""

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""
        import torch
        from torch.nn import functional

        scores = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T / temperature
        return functional.cross_entropy(scores, torch.arange(len(first), device=first.device))
