"""UniSRec's adapter: item vectors through a mixture of experts, each a shift and a linear map."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Float32
from reaemb_bench.core.component import Component
from reaemb_bench.recommender.item_tables import IdTable, SumTable, centred_unit_rms, given_vectors

_SPREAD = 0.02
_LEAST_NOISE = 0.01


class Experts(Component):
    """Parametric whitening by several experts, mixed by a noisy gate (Hou et al., KDD 2022)."""

    version: ClassVar[int] = 2

    experts: int = Field(default=8, ge=1)
    """Number of experts."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout on the input of an expert."""
    noise: bool = True
    """Whether the gate's logits are perturbed in training, by learned amounts."""
    with_ids: bool = False
    """Whether a trainable id vector is added: the paper's transductive setting. False is its inductive one."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """forward() -> (items, hidden). Raises UserError if vectors are missing."""
        # The gate reads the vectors too, so they are centred and scaled first.
        given = centred_unit_rms(torch.from_numpy(given_vectors(items, vectors)))
        mixed = ExpertTable(given, hidden, experts=self.experts, dropout=self.dropout, noise=self.noise)
        return SumTable(IdTable(items, hidden, spread=_SPREAD), mixed) if self.with_ids else mixed


class ExpertTable(nn.Module):
    """The adapter over frozen vectors (items, width), which are not part of the saved state."""

    vectors: Tensor

    def __init__(self, vectors: Tensor, hidden: int, *, experts: int, dropout: float, noise: bool) -> None:
        super().__init__()
        width = vectors.shape[1]
        self.register_buffer("vectors", vectors, persistent=False)
        self.shift = nn.Parameter(torch.zeros(experts, width))
        self.weight = nn.Parameter(torch.randn(experts, width, hidden) * _SPREAD)
        self.gate = nn.Parameter(torch.zeros(width, experts))
        self.spread = nn.Parameter(torch.zeros(width, experts)) if noise else None
        self.dropout = nn.Dropout(dropout)

    def gates(self) -> Tensor:
        """Each expert's share of each item, (items, experts); rows sum to 1."""
        logits = self.vectors @ self.gate
        if self.training and self.spread is not None:
            spread = F.softplus(self.vectors @ self.spread) + _LEAST_NOISE
            logits = logits + torch.randn_like(logits) * spread
        return logits.softmax(dim=-1)

    def expert(self, number: int) -> Tensor:
        """One expert's output for all vectors, (items, hidden)."""
        output: Tensor = (self.dropout(self.vectors) - self.shift[number]) @ self.weight[number]
        return output

    def forward(self) -> Tensor:
        """(items, hidden)."""
        gates = self.gates()
        mixed = [gates[:, number, None] * self.expert(number) for number in range(len(self.weight))]
        return torch.stack(mixed).sum(dim=0)
