"""A gated recurrent layer over packed histories, fast on a CPU.

torch's own clears a buffer as large as the batch for every time step of the backward pass and multiplies small matrices
one by one for the weights' gradient. Here each step touches its own rows, and that gradient is one product. On other
devices torch's kernels are the faster ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
        before = inputs.new_empty(len(inputs), hidden)
        gates = inputs.new_empty(len(inputs), 4 * hidden)
        states = inputs.new_empty(len(inputs), hidden)
        state, place = start, 0
        for size in sizes:
            rows = slice(place, place + size)
            before[rows] = state[:size]
            said = torch.addmm(bias, before[rows], weight.T)
            both = torch.sigmoid(inputs[rows, : 2 * hidden] + said[:, : 2 * hidden])
            reset, update = both.chunk(2, dim=1)
            remembered = said[:, 2 * hidden :]
            new = torch.tanh(torch.addcmul(inputs[rows, 2 * hidden :], reset, remembered))
            torch.lerp(new, before[rows], update, out=states[rows])
            torch.cat([both, new, remembered], dim=1, out=gates[rows])
            state, place = states[rows], place + size
        ctx.sizes = sizes
        ctx.users = len(start)
        ctx.save_for_backward(before, gates, weight)
        return states

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, Tensor, Tensor, Tensor]:
        """Back through time; weights' gradients are products over all positions at once."""
        before, gates, weight = ctx.saved_tensors
        hidden = weight.shape[1]
        of_inputs = before.new_empty(len(before), 3 * hidden)
        of_said = torch.empty_like(of_inputs)
        of_state = before.new_zeros(ctx.users, hidden)
        place = len(before)
        for size in reversed(ctx.sizes):
            rows = slice(place - size, place)
            reset, update, new, remembered = gates[rows].chunk(4, dim=1)
            arriving = of_state[:size] + upstream[0][rows]
            of_new = arriving * (1 - update) * (1 - new * new)
            of_update = arriving * (before[rows] - new) * update * (1 - update)
            of_reset = of_new * remembered * reset * (1 - reset)
            torch.cat([of_reset, of_update, of_new], dim=1, out=of_inputs[rows])
            torch.cat([of_reset, of_update, of_new * reset], dim=1, out=of_said[rows])
            of_state[:size] = torch.addmm(arriving * update, of_said[rows], weight)
            place -= size
        return of_inputs, None, of_state, of_said.T @ before, of_said.sum(dim=0)
