"""BERT4Rec: bidirectional self-attention that restores masked items (Sun et al., CIKM 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.core.component import Component

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from reaemb_bench.recommender.packing import Examples, Packed


class BERT4Rec(Component):
    """Self-attention over the whole history; a mask behind it asks for the next item.

    Blocks and item vectors are SASRec's, so that the two heads differ in what they are asked and not in their
    layers.
    """

    hidden: int = Field(default=128, ge=1)
    """Width of item vectors and states."""
    max_length: int = Field(default=50, ge=2)
    """Most recent positions that are read, the mask included."""
    blocks: int = Field(default=2, ge=1)
    """Attention blocks."""
    attention_heads: int = Field(default=1, ge=1)
    """Attention heads a block; must divide `hidden`."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout on embeddings, attention and feed-forward layers."""
    mask_probability: float = Field(default=0.2, gt=0, le=1)
    """Share of positions that are to be restored in training."""
    kept: float = Field(default=0.1, ge=0, le=1)
    """Share of those that show their own item."""
    replaced: float = Field(default=0.1, ge=0, le=1)
    """Share of those that show a random item; all others show the mask."""
    copies: Literal["none", "last", "prefix"] = "prefix"
    """Whether each sequence comes again with only its last item masked, as it will be asked in the end: whole, as in
    the paper's code (`last`), or cut behind a random item."""
    prefixes: int = Field(default=1, ge=1)
    """How often it comes again where it is cut, each time elsewhere: of what training asks, this is most like the
    question in the end."""
    count_from: Literal["oldest", "newest"] = "newest"
    """What is read at position 1. Counted from the newest, the mask that asks for the next item stands at 1 in every
    history; the paper's code counts from the oldest."""
    attend_padding: bool = False
    """Whether attention reads the padding up to `max_length`, whose states are zero, and positions go on counting when
    the mask pushes the oldest item out (defect D12 of the paper's code)."""

    def build(self, table: nn.Module) -> nn.Module:
        """The network over `table`, whose forward() gives item vectors (items, hidden)."""
        from reaemb_bench.recommender.attention import SelfAttentive

        return SelfAttentive(
            table,
            hidden=self.hidden,
            max_length=self.max_length,
            blocks=self.blocks,
            attention_heads=self.attention_heads,
            dropout=self.dropout,
            causal=False,
            attend_padding=self.attend_padding,
            count_from=self.count_from,
            masks=True,
        )

    def examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Masked positions and what stood there, drawn anew at every call."""
        from reaemb_bench.recommender.packing import masked_items

        return masked_items(
            sequences,
            self.max_length,
            items,
            generator,
            probability=self.mask_probability,
            kept=self.kept,
            replaced=self.replaced,
            copies=self.copies,
            prefixes=self.prefixes,
        )

    def question(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories with a mask behind them."""
        import numpy as np

        from reaemb_bench.recommender.packing import pack

        users = np.arange(histories.users)
        asked = histories.followed_by(users, np.full(len(users), items, dtype=np.int32))
        counted = self.max_length + 1 if self.attend_padding else self.max_length
        return pack(asked, self.max_length, device, counted=counted)
