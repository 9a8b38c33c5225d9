"""The network of GRU4Rec."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from reaemb_bench.heads.gated import gated
from reaemb_bench.heads.packing import Packed


class Recurrent(nn.Module):
    """A gated recurrent network over item vectors."""

    def __init__(
        self,
        table: nn.Module,
        *,
        hidden: int,
        layers: int,
        dropout: float,
        bias: bool,
        projected: bool,
        padded_to: int | None,
    ) -> None:
        super().__init__()
        self.table = table
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(hidden, hidden, layers, bias=bias, dropout=dropout if layers > 1 else 0.0)
        self.output = nn.Linear(hidden, hidden) if projected else nn.Identity()
        self.padded_to = padded_to
        self.padding = nn.Parameter(torch.randn(hidden) / math.sqrt(hidden)) if padded_to is not None else None

    def forward(self, packed: Packed, vectors: Tensor, places: Tensor) -> Tensor:
        """States (places, hidden) after the items there; vectors (items, hidden), what `table()` gives."""
        order, sizes, users = _by_time(packed)
        read = self.dropout(F.embedding(packed.items.index_select(0, order), vectors))
        states = self._run(read, sizes, self._start(packed.lengths.index_select(0, users)))
        moved_to = torch.empty_like(order)
        moved_to[order] = torch.arange(len(order), device=order.device)
        made: Tensor = self.output(states.index_select(0, moved_to[places]))
        return made

    def _run(self, read: Tensor, sizes: Tensor, start: Tensor | None) -> Tensor:
        """States (positions, hidden) of what was read, sorted by time; `sizes` users at each time step."""
        if read.device.type != "cpu":
            states: Tensor = self.gru(PackedSequence(read, sizes), start)[0].data
            return states
        zeros = read.new_zeros(int(sizes[0]), read.shape[1])
        for layer in range(self.gru.num_layers):
            weight_ih, weight_hh, *biases = self.gru.all_weights[layer]
            bias_ih, bias_hh = biases or (None, weight_hh.new_zeros(len(weight_hh)))
            began = zeros if start is None else start[layer]
            if layer:
                read = F.dropout(read, self.gru.dropout, self.training)
            read = gated(F.linear(read, weight_ih, bias_ih), sizes.tolist(), began, weight_hh, bias_hh)
        return read

    def _start(self, lengths: Tensor) -> Tensor | None:
        """The state (1, users, hidden) after the padding that stands before each history."""
        if self.padded_to is None or self.padding is None:
            return None
        # With one layer a state is an output: one call gives those after 1, 2, ... of them.
        alone = torch.ones(self.padded_to, dtype=torch.long)
        after = self._run(self.padding.expand(self.padded_to, -1), alone, None)
        states = torch.cat([torch.zeros_like(after[:1]), after])
        return states.index_select(0, self.padded_to - lengths)[None]


def _by_time(packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
    """The flat places in order of time and, at equal time, of falling length; how many a time step; users so sorted."""
    users = packed.lengths.argsort(descending=True, stable=True)
    rank = torch.empty_like(users)
    rank[users] = torch.arange(len(users), device=users.device)
    starts = packed.last - packed.lengths + 1
    steps = torch.arange(len(packed.items), device=users.device) - starts.repeat_interleave(packed.lengths)
    order = (steps * len(users) + rank.repeat_interleave(packed.lengths)).argsort()
    sizes = torch.bincount(steps).cpu()
    return order, sizes, users
