"""AlphaFuse (arXiv 2504.19218): one item table, of text vectors and of ids in the directions that texts leave empty."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Float32, Vectors
from reaemb_bench.core.component import Component
from reaemb_bench.encoder.reducers import PCA, Whitening
from reaemb_bench.recommender.item_tables import given_vectors


class NullSpaceIds(Component):
    """Frozen text vectors in their principal directions, the emptiest of which also hold trained ids.

    Source: AlphaFuse (Hu et al., SIGIR 2025), arXiv 2504.19218.
    """

    null: float = Field(default=0.5, gt=0, lt=1)
    """Share of the head's width that counts as the null space: the directions of least variance among those kept."""
    standardised: bool = True
    """Whether all directions of the text are scaled to variance 1."""
    keep_text: bool = True
    """Whether ids are added to the text in the null space, and not put in its place."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """forward() -> (items, hidden). Raises UserError if vectors are missing or narrower than the text's part."""
        given = Vectors(given_vectors(items, vectors))
        nullity = max(1, round(self.null * hidden))
        kept = hidden if self.keep_text else hidden - nullity
        reducer = Whitening(dimensions=kept) if self.standardised else PCA(dimensions=kept)
        text = torch.from_numpy(reducer.reduce(given).values)
        # Entries of size 1/sqrt(hidden), as in all tables of the package.
        text = text / (text.square().mean().sqrt().clamp(min=1e-12) * math.sqrt(hidden))
        return NullSpaceTable(nn.functional.pad(text, (0, hidden - kept)), nullity)


class NullSpaceTable(nn.Module):
    """Frozen vectors (items, hidden), not part of the saved state, plus ids (items, nullity) in the last columns."""

    text: Tensor

    def __init__(self, text: Tensor, nullity: int) -> None:
        super().__init__()
        self.register_buffer("text", text, persistent=False)
        self.ids = nn.Parameter(torch.randn(len(text), nullity) / math.sqrt(text.shape[1]))

    def forward(self) -> Tensor:
        """(items, hidden)."""
        row_space, null_space = self.text.tensor_split([self.text.shape[1] - self.ids.shape[1]], dim=1)
        return torch.cat([row_space, null_space + self.ids], dim=1)
