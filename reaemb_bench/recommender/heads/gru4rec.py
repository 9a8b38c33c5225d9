"""A gated recurrent layer over packed histories, fast on a CPU.

torch's own clears a buffer as large as the batch for every time step of the backward pass and multiplies small matrices
one by one for the weights' gradient. Here each step touches its own rows, and that gradient is one product. On other
devices torch's kernels are the faster ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.core.component import Component
from reaemb_bench.recommender.packing import Packed

if TYPE_CHECKING:
    import numpy as np

    from reaemb_bench.recommender.packing import Examples


def gated(inputs: Tensor, sizes: Sequence[int], start: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """States (positions, hidden) of gated recurrent units (Cho et al., EMNLP 2014, in torch's arrangement).

    inputs: (positions, 3 · hidden), what each item says to reset, update and new gate; positions are sorted by time,
    and `sizes` never grows: at time t the first sizes[t] users still have an item. start: (users, hidden).
    weight (3 · hidden, hidden) and bias (3 · hidden,) are those of the hidden state.
    """
    states: Tensor = _Gated.apply(inputs, tuple(sizes), start, weight, bias)  # type: ignore[no-untyped-call]
    return states


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, sizes: tuple[int, ...], start: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Step by step; gates are kept for backward."""
        hidden = weight.shape[1]
        said = torch.empty_like(inputs)
        gates = inputs.new_empty(len(inputs), 2 * hidden)
        new = inputs.new_empty(len(inputs), hidden)
        states = torch.empty_like(new)
        state, turned = start, weight.T
        for heard, own, both, fresh, made in _by_step(sizes, inputs, said, gates, new, states):
            before = state[: len(heard)]
            torch.addmm(bias, before, turned, out=own)
            torch.add(heard[:, : 2 * hidden], own[:, : 2 * hidden], out=both).sigmoid_()
            torch.addcmul(heard[:, 2 * hidden :], both[:, :hidden], own[:, 2 * hidden :], out=fresh).tanh_()
            state = torch.lerp(fresh, before, both[:, hidden:], out=made)
        ctx.sizes = sizes
        ctx.save_for_backward(said[:, 2 * hidden :], gates, new, states, start, weight)
        return states

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:
        """Back through time; only what runs from state to state goes step by step."""
        remembered, gates, new, states, start, weight = ctx.saved_tensors
        hidden, sizes = weight.shape[1], ctx.sizes
        reset, update = gates.chunk(2, dim=1)
        before = torch.cat([start[: sizes[0]], *_carried(states, sizes)])
        # What a state's gradient is multiplied with on its way to reset, update and new gate. The derivatives of the
        # sigmoid and of tanh are torch's own kernels, one pass over memory each.
        of_new = torch.ops.aten.tanh_backward(1 - update, new)
        of_reset = torch.ops.aten.sigmoid_backward(of_new * remembered, reset)
        of_update = torch.ops.aten.sigmoid_backward(before - new, update)
        factors = torch.stack([of_reset, of_update, of_new * reset], dim=1)
        arriving, of_said = torch.empty_like(states), torch.empty_like(factors)
        of_state = torch.zeros_like(start)
        for down, come, factor, made, kept in _by_step(sizes, upstream[0], arriving, factors, of_said, update)[::-1]:
            size = len(down)
            torch.add(of_state[:size], down, out=come)
            torch.mul(come[:, None], factor, out=made)
            torch.addmm(come * kept, made.view(size, -1), weight, out=of_state[:size])
        said = of_said.view(len(states), -1)
        of_inputs = torch.cat([said[:, : 2 * hidden], arriving * of_new], dim=1)
        return of_inputs, None, of_state, said.T @ before, said.sum(dim=0)


def _by_step(sizes: Sequence[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """The rows of each time step, of all tensors."""
    return list(zip(*(torch.split(tensor, list(sizes)) for tensor in tensors), strict=True))


def _carried(states: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The states before each time step but the first, of the users who have it."""
    return [made[:size] for made, size in zip(torch.split(states, list(sizes)), sizes[1:], strict=False)]


# The network of GRU4Rec.


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


# GRU4Rec: a recurrent network over the history (Hidasi et al., ICLR 2016).


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
        from reaemb_bench.recommender.packing import next_items

        return next_items(sequences, self.max_length, last_only=self.targets == "last")

    def question(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The histories as they are; the state after the last item asks for the next."""
        from reaemb_bench.recommender.packing import pack

        return pack(histories, self.max_length, device)
