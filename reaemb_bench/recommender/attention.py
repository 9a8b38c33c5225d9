"""Self-attention over packed histories: the network of all self-attentive heads, and the block of SASRec."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.component import Component
from reaemb_bench.recommender.packing import Packed

CountFrom = Literal["oldest", "newest"]
LAYER_NORM_EPSILON = 1e-8


class AttentionSettings(Component):
    """Sizes of a self-attentive network."""

    hidden: int = Field(default=128, ge=1)
    """Width of item vectors and states."""
    max_length: int = Field(default=50, ge=1)
    """Most recent interactions that are read."""
    blocks: int = Field(default=2, ge=1)
    """Attention blocks."""
    attention_heads: int = Field(default=1, ge=1)
    """Attention heads per block; must divide `hidden`."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout on embeddings, attention and feed-forward layers."""


class SelfAttentive(nn.Module):
    """Attention blocks over item vectors scaled by sqrt(hidden) plus learned positions; a layer norm ends them.

    block: makes a module whose forward(states, packed, indices) is that of `Block`. scaled: without it, item vectors
    are added as they are, and no layer norm follows.
    """

    def __init__(
        self,
        table: nn.Module,
        sizes: AttentionSettings,
        block: Callable[[], nn.Module],
        *,
        masks: bool,
        count_from: CountFrom,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        self.table = table
        self.count_from = count_from
        # Positions count from 1, and a mask may come after the last.
        self.position = nn.Embedding(sizes.max_length + 2, sizes.hidden)
        self.dropout = nn.Dropout(sizes.dropout)
        self.blocks = nn.ModuleList(block() for _ in range(sizes.blocks))
        self.scale = math.sqrt(sizes.hidden) if scaled else 1.0
        self.norm = nn.LayerNorm(sizes.hidden, eps=LAYER_NORM_EPSILON) if scaled else nn.Identity()
        self.mask = nn.Parameter(torch.randn(sizes.hidden) / math.sqrt(sizes.hidden)) if masks else None
        # Scaled item vectors have entries of spread 1. Masks differ by their position alone, so positions must weigh as
        # much; positions of items may weigh less.
        nn.init.normal_(self.position.weight, std=1.0 if masks else 1 / math.sqrt(sizes.hidden))

    def forward(self, packed: Packed, vectors: Tensor, indices: Tensor) -> Tensor:
        """States (n, hidden) at `indices`; vectors (items, hidden) from `table()`; item number `items` is the mask."""
        items = len(vectors)
        if self.mask is None:
            read = F.embedding(packed.items, vectors)
        else:
            read = F.embedding(packed.items.clamp(max=items - 1), vectors)
            read = torch.where((packed.items == items)[:, None], self.mask, read)
        positions = packed.positions
        if self.count_from == "newest":
            positions = packed.lengths.repeat_interleave(packed.lengths) + 1 - positions
        states = self.dropout(read * self.scale + self.position(positions))
        for block in self.blocks[:-1]:
            states = block(states, packed)
        # After the last attention only the wanted positions are computed.
        normed: Tensor = self.norm(self.blocks[-1](states, packed, indices))
        return normed


class Block(nn.Module):
    """Self-attention and a point-wise feed-forward layer, each around a residual (Kang & McAuley, ICDM 2018).

    Queries are normalised, keys and values are not, and the residual goes around the normalised input.
    """

    def __init__(self, sizes: AttentionSettings, *, causal: bool, padded_to: int | None) -> None:
        super().__init__()
        hidden = sizes.hidden
        self.attention_heads = sizes.attention_heads
        self.causal = causal
        self.padded_to = padded_to
        self.attention_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON)
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.feed_forward_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON)
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, states: Tensor, packed: Packed, indices: Tensor | None = None) -> Tensor:
        """(positions, hidden) -> the same shape, or (n, hidden) at `indices` alone."""
        normed = self.attention_norm(states)
        projected = torch.cat([self.query(normed), self.key_value(states)], dim=1)
        if self.padded_to is None:
            rate = self.dropout.p if self.training else 0.0
            attended = attend(projected, packed, self.attention_heads, causal=self.causal, dropout=rate)
        else:
            attended = self._attend_padding(projected, packed, self.padded_to)
        if indices is not None:
            normed, attended = normed.index_select(0, indices), attended.index_select(0, indices)
        normed = self.feed_forward_norm(normed + self.output(attended))
        inner = self.dropout(F.relu(self.inner(normed)))
        output: Tensor = normed + self.dropout(self.outer(inner))
        return output

    def _attend_padding(self, projected: Tensor, packed: Packed, padded_to: int) -> Tensor:
        """`attend`, if zero states before each history, up to `padded_to` positions, are attended to as well.

        n equal keys have the weight of one key whose logit is higher by log n, so no padding is computed.
        """
        outputs = []
        for bucket in packed.buckets:
            query, key, value = bucket.unpack(projected, self.attention_heads)
            pads = padded_to - packed.lengths[bucket.users]
            pad_key, pad_value = self.key_value.bias.view(2, self.attention_heads, query.shape[-1])
            scale = query.shape[-1] ** -0.5
            logits = query @ key.transpose(-1, -2) * scale
            if bucket.real is not None:
                logits = logits.masked_fill(~bucket.real[:, None, None, :], -torch.inf)
            pad_logits = torch.einsum("uhld,hd->uhl", query, pad_key) * scale + pads.log()[:, None, None]
            weights = torch.cat([logits, pad_logits[..., None]], dim=-1).softmax(dim=-1)
            own, padding = weights[..., :-1], weights[..., -1:]
            if self.training and self.dropout.p:
                own = self.dropout(own)
                padding = padding * share_after_dropout(pads, padding, self.dropout.p)
            outputs.append(bucket.pack(own @ value + padding * pad_value[:, None, :]))
        return torch.cat(outputs)


def attend(projected: Tensor, packed: Packed, attention_heads: int, *, causal: bool, dropout: float) -> Tensor:
    """Softmax attention of each history to itself.

    projected: query, key and value of all positions, (positions, 3 * hidden). Returns (positions, hidden).
    """
    outputs = []
    for bucket in packed.buckets:
        query, key, value = bucket.unpack(projected, attention_heads)
        # Under the causal mask no position attends to the empty slots, which come after it.
        mask = None if causal or bucket.real is None else bucket.real[:, None, None, :]
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal
        )
        outputs.append(bucket.pack(attended))
    return torch.cat(outputs)


def share_after_dropout(pads: Tensor, like: Tensor, rate: float) -> Tensor:
    """The share, in the shape of `like` (users, ...), that dropout leaves of `pads` (users,) equal weights."""
    count = pads.to(like.dtype)[:, None, None, None].expand_as(like).contiguous()
    kept = 1 - rate
    drawn: Tensor = torch.binomial(count, torch.full_like(count, kept))
    return drawn / (count.clamp(min=1) * kept)
