"""The modules of item tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reaemb_bench.artifacts import Float32


class IdTable(nn.Module):
    """Trainable item vectors, random or started from given ones, with entries of root mean square 1/sqrt(hidden)."""

    def __init__(self, items: int, hidden: int, start: Float32 | None = None) -> None:
        super().__init__()
        begun = torch.randn(items, hidden) if start is None else _unit_rms(torch.from_numpy(start))
        # Self-attentive heads multiply by sqrt(hidden), which brings these to unit variance.
        self.weight = nn.Parameter(begun / math.sqrt(hidden))

    def forward(self) -> Tensor:
        """(items, hidden)."""
        return self.weight


class FrozenTable(nn.Module):
    """Frozen vectors behind an adapter; the vectors themselves are no part of the saved state."""

    vectors: Tensor

    def __init__(self, vectors: Float32, hidden: int, *, adapter: str, inner: int, unit_rms: bool) -> None:
        super().__init__()
        frozen = torch.from_numpy(vectors)
        if unit_rms:
            frozen = _unit_rms(frozen)
        self.register_buffer("vectors", frozen, persistent=False)
        width = vectors.shape[1]
        if adapter == "none":
            self.adapter: nn.Module = nn.Identity()
        else:
            between = [nn.GELU()] if adapter == "mlp" else []
            self.adapter = nn.Sequential(nn.Linear(width, inner), *between, nn.Linear(inner, hidden))

    def forward(self) -> Tensor:
        """(items, hidden)."""
        adapted: Tensor = self.adapter(self.vectors)
        return adapted


class SumTable(nn.Module):
    """The sum of two tables."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self) -> Tensor:
        """(items, hidden)."""
        summed: Tensor = self.first() + self.second()
        return summed


def _unit_rms(vectors: Tensor) -> Tensor:
    return vectors / vectors.square().mean().sqrt().clamp(min=1e-12)
