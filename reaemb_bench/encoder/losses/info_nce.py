"""InfoNCE over two views. Shapes: n items, d width."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from reaemb_bench.core.component import Component
from reaemb_bench.encoder.similarity import Similarity, comparable


class InfoNCE(Component):
    """Symmetric InfoNCE: each view must find its twin among all items of the batch.

    logits = similarities of X and Y/τ; the loss is the mean of the cross-entropies of rows and columns against the
    diagonal. Unlike `soft-target` it treats every other item as equally wrong.

    Inputs: two views (n, d) of the same n items and the temperature τ, a scalar tensor.
    Source: van den Oord et al., arXiv 1807.03748, equation 4, in both directions.

    Example: `lrcl.loss = {use = "info-nce", initial_temperature = 0.05}`
    """

    initial_temperature: float = Field(default=0.05, gt=0)
    """Temperature τ at the first step; it is learned from there."""
    similarity: Similarity = "cosine"
    """What views are compared by."""

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""
        first, second = comparable(torch.stack([first, second]), self.similarity)
        logits = first @ second.T / temperature
        own = torch.arange(len(first), device=first.device)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
