"""eSASRec: SASRec's training task with LiGR blocks and a sampled softmax (Tikhonovich et al., RecSys 2025)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.recommender.attention import AttentionSettings, CountFrom, SelfAttentive, attend
from reaemb_bench.recommender.packing import Examples, Packed, next_items, pack


class ESASRec(AttentionSettings):
    """SASRec with LiGR blocks, whose residuals are gated; its authors' loss is `sampled-softmax` without `corrected`.

    As in RecTools, the authors' code, item vectors are not scaled, and no layer norm follows the last block.
    """

    version: ClassVar[int] = 2

    expansion: int = Field(default=4, ge=1)
    """Inner width of the feed-forward layers, in multiples of `hidden`."""
    count_from: CountFrom = "newest"
    """Which item has position 1. The authors' code counts from the newest."""

    def build(self, table: nn.Module) -> nn.Module:
        """The network over `table`, whose forward() returns item vectors (items, hidden)."""
        block = partial(LiGRBlock, self)
        return SelfAttentive(table, self, block, masks=False, count_from=self.count_from, scaled=False)

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Every position predicts the next item."""
        return next_items(sequences, self.max_length, last_only=False)

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories as they are."""
        return pack(histories, self.max_length, device)


class LiGRBlock(nn.Module):
    """Causal attention and a SwiGLU layer; a sigmoid of the state gates what each adds to it (arXiv 2502.03417)."""

    def __init__(self, head: ESASRec) -> None:
        super().__init__()
        hidden, inner = head.hidden, head.expansion * head.hidden
        self.attention_heads = head.attention_heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.projections = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.attention_gate = nn.Linear(hidden, hidden)
        self.feed_forward_norm = nn.LayerNorm(hidden)
        self.inner = nn.Linear(hidden, 2 * inner, bias=False)
        self.outer = nn.Linear(inner, hidden, bias=False)
        self.feed_forward_gate = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(head.dropout)

    def forward(self, states: Tensor, packed: Packed, indices: Tensor | None = None) -> Tensor:
        """(positions, hidden) -> the same shape, or (n, hidden) at `indices` alone."""
        projected = self.projections(self.attention_norm(states))
        rate = self.dropout.p if self.training else 0.0
        attended = attend(projected, packed, self.attention_heads, causal=True, dropout=rate)
        if indices is not None:
            states, attended = states.index_select(0, indices), attended.index_select(0, indices)
        states = states + self.attention_gate(states).sigmoid() * self.dropout(self.output(attended))
        gate, value = self.inner(self.feed_forward_norm(states)).chunk(2, dim=1)
        fed_forward = self.dropout(self.outer(self.dropout(F.silu(gate) * value)))
        output: Tensor = states + self.feed_forward_gate(states).sigmoid() * fed_forward
        return output
