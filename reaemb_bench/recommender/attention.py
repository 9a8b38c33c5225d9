"""Self-attention of packed histories."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.recommender.packing import Bucket, Packed

LAYER_NORM_EPSILON = 1e-8


class Block(nn.Module):
    """Self-attention and a point-wise feed-forward layer, each around a residual (Kang & McAuley, ICDM 2018).

    Queries are normalised, keys and values are not, and the residual goes around the normalised input.
    """

    def __init__(
        self, hidden: int, attention_heads: int, dropout: float, *, causal: bool, padded_to: int | None
    ) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.causal = causal
        self.padded_to = padded_to
        self.attention_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON)
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.feed_forward_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON)
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, packed: Packed, places: Tensor | None = None) -> Tensor:
        """(positions, hidden) -> the same shape, or (places, hidden) where only some are wanted."""
        normed = self.attention_norm(states)
        projected = torch.cat([self.query(normed), self.key_value(states)], dim=1)
        attended = torch.cat([self._attend(projected, bucket, packed) for bucket in packed.buckets])
        if places is not None:
            normed, attended = normed.index_select(0, places), attended.index_select(0, places)
        normed = self.feed_forward_norm(normed + self.output(attended))
        inner = self.dropout(F.relu(self.inner(normed)))
        made: Tensor = normed + self.dropout(self.outer(inner))
        return made

    def _attend(self, projected: Tensor, bucket: Bucket, packed: Packed) -> Tensor:
        """Projections (positions, 3 · hidden) of all -> attended values of the bucket's positions, packed."""
        users, width = bucket.grid.shape
        grid = projected.index_select(0, bucket.grid.view(-1)).view(users, width, 3, self.attention_heads, -1)
        query, key, value = grid.permute(2, 0, 3, 1, 4)
        if self.padded_to is None:
            attended = self._over_history(query, key, value, bucket)
        else:
            pads = self.padded_to - packed.lengths[bucket.users]
            attended = self._over_history_and_padding(query, key, value, bucket, pads)
        flat = attended.transpose(1, 2).reshape(users * width, -1)
        return flat if bucket.slots is None else flat.index_select(0, bucket.slots)

    def _over_history(self, query: Tensor, key: Tensor, value: Tensor, bucket: Bucket) -> Tensor:
        # Under the causal mask no position reaches the empty slots, which stand behind it.
        mask = None if self.causal or bucket.real is None else bucket.real[:, None, None, :]
        rate = self.dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=rate, is_causal=self.causal)

    def _over_history_and_padding(
        self, query: Tensor, key: Tensor, value: Tensor, bucket: Bucket, pads: Tensor
    ) -> Tensor:
        """As if zeros stood before each history: n equal keys weigh as one whose logit is higher by log n."""
        heads, each = self.attention_heads, query.shape[-1]
        pad_key, pad_value = self.key_value.bias.view(2, heads, each)
        scale = each**-0.5
        logits = query @ key.transpose(-1, -2) * scale
        if bucket.real is not None:
            logits = logits.masked_fill(~bucket.real[:, None, None, :], -torch.inf)
        pad_logits = torch.einsum("uhld,hd->uhl", query, pad_key) * scale + pads.log()[:, None, None]
        weights = torch.cat([logits, pad_logits[..., None]], dim=-1).softmax(dim=-1)
        own, padding = weights[..., :-1], weights[..., -1:]
        if self.training and self.dropout.p:
            own = self.dropout(own)
            padding = padding * self._kept_share(pads, padding)
        attended: Tensor = own @ value + padding * pad_value[:, None, :]
        return attended

    def _kept_share(self, pads: Tensor, like: Tensor) -> Tensor:
        """What dropout leaves of n equal weights: n draws of their own, summed."""
        count = pads.to(like.dtype)[:, None, None, None].expand_as(like).contiguous()
        kept = 1 - self.dropout.p
        drawn: Tensor = torch.binomial(count, torch.full_like(count, kept))
        return drawn / (count.clamp(min=1) * kept)


# The network that SASRec and BERT4Rec share.


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
