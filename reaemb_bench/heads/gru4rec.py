"""GRU4Rec: a recurrent network over the history (Hidasi et al., ICLR 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from reaemb_bench.artifacts import Sequences
from reaemb_bench.component import Component

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from reaemb_bench.heads.examples import Examples
    from reaemb_bench.heads.packing import Packed


class GRU4Rec(Component):
    """Gated recurrent units; the state after each item is matched with the item that comes next."""

    hidden: int = Field(default=128, ge=1)
    """Width of item vectors and states."""
    max_length: int = Field(default=50, ge=1)
    """Most recent interactions that are read."""
    layers: int = Field(default=1, ge=1)
    """Recurrent layers."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout on item vectors and between layers."""
    bias: bool = True
    """Whether the recurrent layers have biases; the paper's code has none."""
    projected: bool = True
    """Whether a linear layer stands between states and scores; the paper's code has none."""
    targets: Literal["all", "last"] = "all"
    """Positions that are trained to predict the next item: `last` is what the paper's code does (defect D14)."""
    read_padding: bool = False
    """Whether the network first reads padding, a trained vector, up to `max_length` (defect D12 of the paper's code).
    The state after n of them is the same for everybody and computed once. Only with one layer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.read_padding and self.layers > 1:
            raise ValueError(f"read_padding goes with one layer, not layers = {self.layers}")
        return self

    def build(self, table: nn.Module) -> nn.Module:
        """The network over `table`, whose forward() gives item vectors (items, hidden)."""
        from reaemb_bench.heads.recurrent import Recurrent

        return Recurrent(
            table,
            hidden=self.hidden,
            layers=self.layers,
            dropout=self.dropout,
            bias=self.bias,
            projected=self.projected,
            padded_to=self.max_length if self.read_padding else None,
        )

    def examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Every position, or the last one alone, predicts the next item."""
        from reaemb_bench.heads.examples import next_items

        return next_items(sequences, self.max_length, last_only=self.targets == "last")

    def question(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories as they are; the state after the last item asks for the next."""
        from reaemb_bench.heads.packing import pack

        return pack(histories, self.max_length, device)
