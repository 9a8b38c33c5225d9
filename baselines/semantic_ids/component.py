"""Semantic ids: an item is a few codes, which items of similar texts share, and no vector of its own."""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Float32, Int64
from reaemb_bench.core.component import Component
from reaemb_bench.recommender.item_tables import centred_unit_rms, given_vectors


class SemanticIds(Component):
    """An item's vector is the sum of trained vectors of its codes, found by residual k-means of the text vectors.

    Sources: TIGER (Rajput et al., NeurIPS 2023) for the codes; Singh et al., RecSys 2024, for a sum of code vectors
    in the place of an id.
    """

    levels: int = Field(default=3, ge=1)
    """Codes of an item: each level clusters what the levels before it left over."""
    codes: int = Field(default=256, ge=2)
    """Clusters of a level; at most one per distinct vector."""
    unique: bool = True
    """Whether items with equal codes get one more code that tells them apart, as in TIGER."""
    seed: int = 0
    """Seed of the clustering, independent of the recipe's seeds."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """forward() -> (items, hidden). Raises UserError if vectors are missing."""
        centred = centred_unit_rms(torch.from_numpy(given_vectors(items, vectors))).numpy()
        codes = residual_codes(centred, self.levels, self.codes, self.seed)
        if self.unique:
            codes = np.column_stack([codes, positions_among_equals(codes)])
        return CodeTable(torch.from_numpy(codes), hidden)


class CodeTable(nn.Module):
    """Trained code vectors; codes (items, levels) are not part of the saved state."""

    codes: Tensor

    def __init__(self, codes: Tensor, hidden: int) -> None:
        super().__init__()
        # All levels share one table, in which each has its own range of rows.
        sizes = codes.amax(dim=0) + 1
        self.register_buffer("codes", codes + sizes.cumsum(0) - sizes, persistent=False)
        levels = codes.shape[1]
        self.weight = nn.Parameter(torch.randn(int(sizes.sum()), hidden) / math.sqrt(hidden * levels))

    def forward(self) -> Tensor:
        """(items, hidden)."""
        return F.embedding_bag(self.codes, self.weight, mode="sum")


def residual_codes(vectors: Float32, levels: int, count: int, seed: int) -> Int64:
    """Codes (items, levels): the nearest of `count` k-means centres, then that of what is left, and so on."""
    left, codes = vectors.astype(np.float64), []
    for level in range(levels):
        clusters = min(count, len(np.unique(left, axis=0)))
        fitted = KMeans(clusters, n_init=1, random_state=seed + level).fit(left)
        codes.append(fitted.labels_.astype(np.int64))
        left = left - fitted.cluster_centers_[fitted.labels_]
    return np.column_stack(codes)


def positions_among_equals(codes: Int64) -> Int64:
    """The position (items,) of each item among those of equal codes, from 0."""
    _, groups = np.unique(codes, axis=0, return_inverse=True)
    groups = groups.ravel()
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], groups[order])
    positions = np.empty(len(codes), dtype=np.int64)
    positions[order] = np.arange(len(codes)) - starts
    return positions
