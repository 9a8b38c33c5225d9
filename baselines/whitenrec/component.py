"""WhitenRec: whitened item vectors and a projection head, with one whitening or several."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Float32, Vectors
from reaemb_bench.core.component import Component
from reaemb_bench.encoder.reducers import principal_axes
from reaemb_bench.recommender.item_tables import given_vectors


class Whitened(Component):
    """The sum over whitenings of the projected whitened vectors (WhitenRec and WhitenRec+, arXiv 2402.10602)."""

    groups: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1,), min_length=1)
    """One entry per whitening: the number of groups of neighbouring dimensions, each of which is whitened by itself. 1
    is full whitening; more groups are more relaxed and keep the correlations between groups."""
    inner: int = Field(default=256, ge=1)
    """Width between the projection head's two layers; all whitenings share the head."""
    epsilon: float = Field(default=1e-8, ge=0)
    """Directions whose variance is at most this share of their group's largest become zero; 0 keeps all that vary, as
    in the authors' code."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """forward() -> (items, hidden). Raises UserError if vectors are missing."""
        given = given_vectors(items, vectors)
        views = [torch.from_numpy(whiten(given, count, self.epsilon)) for count in self.groups]
        return WhitenedTable(torch.stack(views), hidden, self.inner)


class WhitenedTable(nn.Module):
    """The projection head over frozen views (views, items, width), which are not part of the saved state."""

    views: Tensor

    def __init__(self, views: Tensor, hidden: int, inner: int) -> None:
        super().__init__()
        self.register_buffer("views", views, persistent=False)
        self.projection = nn.Sequential(nn.Linear(views.shape[-1], inner), nn.ReLU(), nn.Linear(inner, hidden))

    def forward(self) -> Tensor:
        """(items, hidden)."""
        projected: Tensor = self.projection(self.views)
        return projected.sum(dim=0)


def whiten(vectors: Float32, groups: int, epsilon: float) -> Float32:
    """ZCA whitening of each group of dimensions: unit covariance in each group, closest to the original vectors."""
    parts = []
    for part in np.array_split(vectors, groups, axis=1):
        mean, axes, variances = principal_axes(Vectors(part), part.shape[1])
        kept = variances > epsilon * variances.max(initial=0.0)
        scales = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1.0)), 0.0)
        parts.append((part - mean) @ (axes.T * scales) @ axes)
    return np.concatenate(parts, axis=1).astype(np.float32)
