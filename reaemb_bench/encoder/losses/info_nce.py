"""InfoNCE over two views. Shapes: n items, d width."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reaemb_bench.core.component import Component


class InfoNCE(Component):
    """Symmetric InfoNCE on cosine similarities: each view must find its twin among all items of the batch.

    logits = cos(X, Y)/τ; the loss is the mean of the cross-entropies of rows and columns against the diagonal. Unlike
    `soft-target` it treats every other item as equally wrong.

    Inputs: two views (n, d) of the same n items and the temperature τ, a scalar tensor.
    Source: van den Oord et al., arXiv 1807.03748, equation 4, in both directions.

    Example: `lrcl.loss = {use = "info-nce", initial_temperature = 0.05}`
    """

    initial_temperature: float = Field(default=0.05, gt=0)
    """Temperature τ at the first step; it is learned from there."""

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""
        logits = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T / temperature
        own = torch.arange(len(first), device=first.device)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
