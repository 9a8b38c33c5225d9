"""The network that SASRec and BERT4Rec share."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.heads.attention import LAYER_NORM_EPSILON, Block
from reaemb_bench.heads.packing import Packed

CountFrom = Literal["oldest", "newest"]


class SelfAttentive(nn.Module):
    """Attention blocks over item vectors scaled by sqrt(hidden) plus learned positions."""

    def __init__(
        self,
        table: nn.Module,
        *,
        hidden: int,
        max_length: int,
        blocks: int,
        attention_heads: int,
        dropout: float,
        causal: bool,
        attend_padding: bool,
        masks: bool,
        count_from: CountFrom,
    ) -> None:
        super().__init__()
        self.table = table
        self.count_from = count_from
        # Positions count from 1, and a mask may stand one behind the last.
        self.position = nn.Embedding(max_length + 2, hidden)
        self.dropout = nn.Dropout(dropout)
        padded_to = max_length if attend_padding else None
        self.blocks = nn.ModuleList(
            Block(hidden, attention_heads, dropout, causal=causal, padded_to=padded_to) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON)
        self.mask = nn.Parameter(torch.randn(hidden) / math.sqrt(hidden)) if masks else None
        # Scaled item vectors have entries of spread 1. A mask is told apart from others by its place alone, so that
        # places must weigh as much; where items speak for themselves, less is better.
        nn.init.normal_(self.position.weight, std=1.0 if masks else 1 / math.sqrt(hidden))

    def forward(self, packed: Packed, vectors: Tensor, places: Tensor) -> Tensor:
        """States (places, hidden); vectors (items, hidden), what `table()` gives; item number `items` is the mask."""
        items = len(vectors)
        if self.mask is None:
            read = F.embedding(packed.items, vectors)
        else:
            read = F.embedding(packed.items.clamp(max=items - 1), vectors)
            read = torch.where((packed.items == items)[:, None], self.mask, read)
        positions = packed.positions
        if self.count_from == "newest":
            positions = packed.lengths.repeat_interleave(packed.lengths) + 1 - positions
        states = self.dropout(read * math.sqrt(vectors.shape[1]) + self.position(positions))
        for block in self.blocks[:-1]:
            states = block(states, packed)
        # Behind the last attention nothing else is read.
        normed: Tensor = self.norm(self.blocks[-1](states, packed, places))
        return normed
