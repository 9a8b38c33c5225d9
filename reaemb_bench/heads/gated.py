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
