"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.recommender.attention import AttentionSettings, Block, CountFrom, SelfAttentive
from reaemb_bench.recommender.packing import Examples, Packed, next_items, pack


class SASRec(AttentionSettings):
    """Self-attention over the history; the state at each position is matched with the item that comes next."""

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
        padded_to = self.max_length if self.attend_padding else None
        block = partial(Block, self, causal=self.causal, padded_to=padded_to)
        return SelfAttentive(table, self, block, masks=False, count_from=self.count_from)

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Every position predicts the next item."""
        return next_items(sequences, self.max_length, last_only=False)

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories as they are."""
        return pack(histories, self.max_length, device)
