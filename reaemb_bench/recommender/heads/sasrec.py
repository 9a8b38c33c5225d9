"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018)."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import nn

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.core.component import Component
from reaemb_bench.recommender.attention import CountFrom, SelfAttentive
from reaemb_bench.recommender.packing import Examples, Packed, next_items, pack


class SASRec(Component):
    """Self-attention over the history; the state at each position is matched with the item that comes next."""

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
    causal: bool = True
    """Whether a position attends only to itself and earlier ones. False is defect D2 of the paper's code: positions
    attend to the very items that they are trained to predict."""
    count_from: CountFrom = "oldest"
    """Which item has position 1. Counted from the newest, a position is the distance to the end of the history, not to
    its beginning."""
    attend_padding: bool = False
    """Whether attention reads the padding up to `max_length`, whose states are zero (defect D12 of the paper's code).
    No padding is computed: its equal keys count as one."""

    def build(self, table: nn.Module) -> nn.Module:
        """The network over `table`, whose forward() returns item vectors (items, hidden)."""
        return SelfAttentive(
            table,
            hidden=self.hidden,
            max_length=self.max_length,
            blocks=self.blocks,
            attention_heads=self.attention_heads,
            dropout=self.dropout,
            causal=self.causal,
            attend_padding=self.attend_padding,
            count_from=self.count_from,
            masks=False,
        )

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Every position predicts the next item."""
        return next_items(sequences, self.max_length, last_only=False)

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories as they are."""
        return pack(histories, self.max_length, device)
