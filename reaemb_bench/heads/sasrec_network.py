"""The network of SASRec."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPSILON = 1e-8


class SASRecNetwork(nn.Module):
    """SASRec over an item table.

    Follows the published architecture: queries are normalised and keys and values are not, the residual goes around
    the normalised input, item vectors are scaled by sqrt(hidden) before learned positions (1 = oldest) are added.
    """

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
    ) -> None:
        super().__init__()
        self.table = table
        self.max_length = max_length
        self.left_padded = attend_padding
        self.position = nn.Embedding(max_length + 1, hidden)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(hidden, attention_heads, dropout, causal=causal, attend_padding=attend_padding) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON)
        nn.init.normal_(self.position.weight, std=1 / math.sqrt(hidden))

    def forward(self, items: Tensor, lengths: Tensor, vectors: Tensor) -> Tensor:
        """States (users, length, hidden) of padded histories.

        items: (users, length) item numbers, oldest first; padding, of any value, stands on the right (on the left and
        up to max_length if attend_padding). lengths: (users,). vectors: (items, hidden), what `table()` gives.
        """
        width = items.shape[1]
        places = torch.arange(width, device=items.device)
        positions = places + 1 - (width - lengths[:, None] if self.left_padded else 0)
        real = (positions >= 1) & (positions <= lengths[:, None])
        states = F.embedding(items.masked_fill(~real, 0), vectors) * math.sqrt(vectors.shape[1])
        states = states + self.position(positions * real)
        states = self.dropout(states) * real[..., None]
        for block in self.blocks:
            states = block(states, real)
        normed: Tensor = self.norm(states)
        return normed


class Block(nn.Module):
    """Self-attention and a point-wise feed-forward layer, each around a residual."""

    def __init__(
        self, hidden: int, attention_heads: int, dropout: float, *, causal: bool, attend_padding: bool
    ) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.causal = causal
        self.attend_padding = attend_padding
        self.attention_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON)
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.feed_forward_norm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPSILON)
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        """(users, length, hidden) -> the same shape; padding comes out as zeros."""
        users, length, hidden = states.shape
        normed = self.attention_norm(states)

        def split(tensor: Tensor) -> Tensor:
            return tensor.view(users, length, self.attention_heads, -1).transpose(1, 2)

        keys, values = self.key_value(states).chunk(2, dim=-1)
        # Under the causal mask real positions never reach padding, which stands behind them.
        mask = None if self.causal or self.attend_padding else real[:, None, None, :]
        attended = F.scaled_dot_product_attention(
            split(self.query(normed)),
            split(keys),
            split(values),
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=self.causal,
        )
        mixed = normed + self.output(attended.transpose(1, 2).reshape(users, length, hidden))
        normed = self.feed_forward_norm(mixed)
        inner = self.dropout(F.relu(self.inner(normed)))
        made: Tensor = (normed + self.dropout(self.outer(inner))) * real[..., None]
        return made
