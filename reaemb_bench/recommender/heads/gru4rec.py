"""GRU4Rec: a recurrent network over the history (Hidasi et al., ICLR 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.core.component import Component
from reaemb_bench.recommender.item_tables import FrozenTable
from reaemb_bench.recommender.packing import Examples, Packed, next_items, pack


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
    """Whether states go through a linear layer before they are scored; the paper's code has none."""
    targets: Literal["all", "last"] = "all"
    """Positions that are trained to predict the next item: `last` is what the paper's code does (defect D14)."""
    read_padding: bool = False
    """Whether the network first reads padding up to `max_length` (defect D12 of the paper's code): a trained vector, or
    over frozen vectors the adapter's output for zeros. The state after n of them is the same for all users and computed
    once. Only with one layer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.read_padding and self.layers > 1:
            raise ValueError(f"read_padding goes with one layer, not layers = {self.layers}")
        return self

    def fingerprint(self) -> dict[str, Any]:
        """What stands for padding, which once was a trained vector over every table."""
        return {"padding": "of the table"} if self.read_padding else {}

    def build(self, table: nn.Module) -> nn.Module:
        """The network over `table`, whose forward() returns item vectors (items, hidden)."""
        return Recurrent(table, self)

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Every position, or the last one alone, predicts the next item."""
        return next_items(sequences, self.max_length, last_only=self.targets == "last")

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories as they are."""
        return pack(histories, self.max_length, device)


class Recurrent(nn.Module):
    """Gated recurrent layers over item vectors."""

    def __init__(self, table: nn.Module, head: GRU4Rec) -> None:
        super().__init__()
        hidden, between = head.hidden, head.dropout if head.layers > 1 else 0.0
        self.table = table
        self.dropout = nn.Dropout(head.dropout)
        self.gru = nn.GRU(hidden, hidden, head.layers, bias=head.bias, dropout=between)
        self.output = nn.Linear(hidden, hidden) if head.projected else nn.Identity()
        self.padded_to = head.max_length if head.read_padding else None
        own = head.read_padding and not isinstance(table, FrozenTable)
        self.padding = nn.Parameter(torch.randn(hidden) / math.sqrt(hidden)) if own else None

    def forward(self, packed: Packed, vectors: Tensor, indices: Tensor) -> Tensor:
        """States (n, hidden) after the items at `indices`; vectors (items, hidden), what `table()` returns."""
        # Positions in order of time and, at equal time, of falling length, as recurrent kernels read them.
        device, lengths = packed.items.device, packed.lengths
        users = lengths.argsort(descending=True, stable=True)
        rank = torch.empty_like(users)
        rank[users] = torch.arange(len(users), device=device)
        starts = packed.last - lengths + 1
        steps = torch.arange(len(packed.items), device=device) - starts.repeat_interleave(lengths)
        order = (steps * len(users) + rank.repeat_interleave(lengths)).argsort()
        sizes = torch.bincount(steps).cpu()

        start = None
        if self.padded_to is not None:
            padding = self.table.padding() if isinstance(self.table, FrozenTable) else self.padding
            assert padding is not None
            # With one layer a state is an output: one call gives those after 1, 2, ... pads.
            after = self._run(padding.expand(self.padded_to, -1), torch.ones(self.padded_to, dtype=torch.long))
            padded = torch.cat([torch.zeros_like(after[:1]), after])
            start = padded.index_select(0, self.padded_to - lengths.index_select(0, users))[None]
        read = self.dropout(F.embedding(packed.items.index_select(0, order), vectors))
        states = self._run(read, sizes, start)
        time_index = torch.empty_like(order)
        time_index[order] = torch.arange(len(order), device=device)
        output: Tensor = self.output(states.index_select(0, time_index[indices]))
        return output

    def _run(self, read: Tensor, sizes: Tensor, start: Tensor | None = None) -> Tensor:
        """States (positions, hidden) of inputs sorted by time; `sizes` is the number of users at each time step."""
        if read.device.type != "cpu":
            states: Tensor = self.gru(PackedSequence(read, sizes), start)[0].data
            return states
        zeros = read.new_zeros(int(sizes[0]), read.shape[1])
        for layer in range(self.gru.num_layers):
            weight_ih, weight_hh, *biases = self.gru.all_weights[layer]
            bias_ih, bias_hh = biases or (None, weight_hh.new_zeros(len(weight_hh)))
            first = zeros if start is None else start[layer]
            if layer:
                read = F.dropout(read, self.gru.dropout, self.training)
            inputs = F.linear(read, weight_ih, bias_ih)
            read = _GRULayer.apply(inputs, tuple(sizes.tolist()), first, weight_hh, bias_hh)  # type: ignore[no-untyped-call]
        return read


class _GRULayer(torch.autograd.Function):
    """States (positions, hidden) of gated recurrent units (Cho et al., EMNLP 2014, in torch's arrangement), on a CPU.

    inputs: (positions, 3 * hidden), each item's share of reset, update and new gate; positions are sorted by time, and
    `sizes` never grows: at time t the first sizes[t] users still have an item. start: (users, hidden).
    weight (3 * hidden, hidden) and bias (3 * hidden,) are those of the hidden state.

    torch's own kernel clears a buffer as large as the batch for every time step of the backward pass and multiplies
    small matrices one by one for the weights' gradient. Here each step touches its own rows, and that gradient is one
    product. On other devices torch's kernels are faster.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, sizes: tuple[int, ...], start: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Step by step; gates are kept for backward."""
        hidden = weight.shape[1]
        recurrent = torch.empty_like(inputs)
        gates = inputs.new_empty(len(inputs), 2 * hidden)
        new = inputs.new_empty(len(inputs), hidden)
        states = torch.empty_like(new)
        state, transposed = start, weight.T
        for read_t, recurrent_t, gates_t, new_t, states_t in _by_step(sizes, inputs, recurrent, gates, new, states):
            before = state[: len(read_t)]
            torch.addmm(bias, before, transposed, out=recurrent_t)
            torch.add(read_t[:, : 2 * hidden], recurrent_t[:, : 2 * hidden], out=gates_t).sigmoid_()
            reset, update = gates_t[:, :hidden], gates_t[:, hidden:]
            torch.addcmul(read_t[:, 2 * hidden :], reset, recurrent_t[:, 2 * hidden :], out=new_t).tanh_()
            state = torch.lerp(new_t, before, update, out=states_t)
        ctx.sizes = sizes
        ctx.save_for_backward(recurrent[:, 2 * hidden :], gates, new, states, start, weight)
        return states

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:
        """Back through time; only what flows from state to state goes step by step."""
        recurrent_new, gates, new, states, start, weight = ctx.saved_tensors
        hidden, sizes = weight.shape[1], ctx.sizes
        reset, update = gates.chunk(2, dim=1)
        earlier = zip(torch.split(states, list(sizes)), sizes[1:], strict=False)
        before = torch.cat([start[: sizes[0]], *(states_t[:size] for states_t, size in earlier)])
        # The factors by which a state's gradient reaches reset, update and new gate. The derivatives of the sigmoid and
        # of tanh are torch's own kernels, one pass over memory each.
        new_factor = torch.ops.aten.tanh_backward(1 - update, new)
        reset_factor = torch.ops.aten.sigmoid_backward(new_factor * recurrent_new, reset)
        update_factor = torch.ops.aten.sigmoid_backward(before - new, update)
        factors = torch.stack([reset_factor, update_factor, new_factor * reset], dim=1)
        of_states, of_recurrent = torch.empty_like(states), torch.empty_like(factors)
        of_state = torch.zeros_like(start)
        steps = _by_step(sizes, upstream[0], of_states, factors, of_recurrent, update)
        for upstream_t, of_states_t, factors_t, of_recurrent_t, update_t in reversed(steps):
            size = len(upstream_t)
            torch.add(of_state[:size], upstream_t, out=of_states_t)
            torch.mul(of_states_t[:, None], factors_t, out=of_recurrent_t)
            torch.addmm(of_states_t * update_t, of_recurrent_t.view(size, -1), weight, out=of_state[:size])
        flat = of_recurrent.view(len(states), -1)
        of_inputs = torch.cat([flat[:, : 2 * hidden], of_states * new_factor], dim=1)
        return of_inputs, None, of_state, flat.T @ before, flat.sum(dim=0)


def _by_step(sizes: Sequence[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The rows of each time step, of all tensors."""
    return list(zip(*(torch.split(tensor, list(sizes)) for tensor in tensors), strict=True))
