"""Micro-batches of similar length: how many prompts pass through the language model at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from reaemb_bench.encoding.memory import Shape, free_memory
from reaemb_bench.machine import Machine

MICRO_BATCH = 64
"""Prompts a pass where the machine settings do not say and memory allows."""
_SHARE = 0.5
"""Of the free memory, what one micro-batch may take; the rest is for what was not counted."""


def micro_batch(machine: Machine, shape: Shape, longest: int, *, learns: bool) -> int:
    """Prompts a pass: the machine's setting, or 64, halved until they fit into memory.

    longest: tokens of the longest prompt. learns: a graph is kept for the backward pass. Halving is rare and coarse,
    so that the same machine gives the same bits.
    """
    if machine.micro_batch is not None:
        return machine.micro_batch
    device = machine.torch_device()
    size = MICRO_BATCH
    room = _SHARE * free_memory(str(device)) or float("inf")
    per_prompt = longest * (shape.learnt_token if learns else shape.read_token)
    while size > 1 and size * per_prompt > room:
        size //= 2
    return size


def graphs_that_fit(sizes: Sequence[int], shape: Shape, device: str) -> int:
    """Of how many groups, counted from the last, the graph can be kept until the backward pass; at least one's.

    sizes: tokens of each group, padding included. Results do not depend on it.
    """
    room = _SHARE * free_memory(device)
    needed = np.cumsum(np.asarray(sizes[::-1], dtype=np.float64)) * shape.learnt_token
    return max(1, int((needed <= room).sum()))


def in_turn(lengths: Sequence[int], size: int) -> list[torch.Tensor]:
    """Places of prompts in micro-batches of `size` (the last may be smaller), longest first."""
    order = torch.tensor(_longest_first(lengths), dtype=torch.long)
    return [*torch.split(order, size)] if len(order) else []


def by_length(lengths: Sequence[int], size: int, start: int) -> list[torch.Tensor]:
    """Places of prompts in groups of at most `size`, longest first, that cost least in all.

    A group costs as many tokens as its longest prompt has, times its prompts, and `start` tokens more for being one.
    """
    order = _longest_first(lengths)
    falling = np.array([lengths[place] for place in order], dtype=np.int64)
    # cost[k]: the least for the first k prompts; first[k]: where the last of their groups begins.
    cost = np.zeros(len(order) + 1, dtype=np.int64)
    first = np.zeros(len(order) + 1, dtype=np.int64)
    for stop in range(1, len(order) + 1):
        begins = np.arange(max(0, stop - size), stop)
        costs = cost[begins] + start + (stop - begins) * falling[begins]
        best = int(costs.argmin())
        cost[stop], first[stop] = costs[best], begins[best]
    groups = []
    stop = len(order)
    while stop:
        groups.append(torch.tensor(order[first[stop] : stop]))
        stop = int(first[stop])
    return groups[::-1]


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
