"""HSTU: hierarchical sequential transduction units (Zhai et al., ICML 2024, arXiv 2402.17152)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.recommender.attention import AttentionSettings, CountFrom, SelfAttentive
from reaemb_bench.recommender.packing import Bucket, Examples, Packed, next_items, pack


class HSTU(AttentionSettings):
    """Attention without a softmax: an earlier item counts by its own score alone, and scores need not sum to 1.

    A corpus has the order of interactions and not their times, so only the relative bias of positions exists, not that
    of times. States end with a layer norm and not on the unit sphere, because all heads share the item tables.
    """

    count_from: CountFrom = "oldest"
    """Which item has position 1 among the learned positions; the relative bias needs none."""

    def build(self, table: nn.Module) -> nn.Module:
        """The network over `table`, whose forward() returns item vectors (items, hidden)."""
        return SelfAttentive(table, self, partial(HSTUBlock, self), masks=False, count_from=self.count_from)

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Every position predicts the next item."""
        return next_items(sequences, self.max_length, last_only=False)

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories as they are."""
        return pack(histories, self.max_length, device)


class HSTUBlock(nn.Module):
    """Point-wise attention whose normalised output is multiplied by a gate, with no feed-forward layer (eq. 1-3)."""

    def __init__(self, head: HSTU) -> None:
        super().__init__()
        hidden = head.hidden
        self.attention_heads = head.attention_heads
        self.norm = nn.LayerNorm(hidden)
        self.projections = nn.Linear(hidden, 4 * hidden, bias=False)
        self.distance_bias = nn.Parameter(0.02 * torch.randn(head.max_length))
        self.attended_norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(head.dropout)

    def forward(self, states: Tensor, packed: Packed, indices: Tensor | None = None) -> Tensor:
        """(positions, hidden) -> the same shape, or (n, hidden) at `indices` alone."""
        hidden = states.shape[1]
        projected = F.silu(self.projections(self.norm(states)))
        gate, projected = projected[:, :hidden], projected[:, hidden:]
        attended = torch.cat([self._attend(projected, bucket) for bucket in packed.buckets])
        if indices is not None:
            states, gate, attended = (part.index_select(0, indices) for part in (states, gate, attended))
        output: Tensor = states + self.output(self.dropout(gate * self.attended_norm(attended)))
        return output

    def _attend(self, projected: Tensor, bucket: Bucket) -> Tensor:
        """Projections (positions, 3 * hidden) of all positions -> attended values of the bucket's positions."""
        query, key, value = bucket.unpack(projected, self.attention_heads)
        column = torch.arange(query.shape[2], device=query.device)
        distance = column[:, None] - column
        logits = query @ key.transpose(-1, -2) + self.distance_bias[distance.clamp(min=0)]
        # Divided by the longest length and not by the batch's, so that batch mates change nothing.
        weights = F.silu(logits).masked_fill(distance < 0, 0) / len(self.distance_bias)
        return bucket.pack(weights @ value)
