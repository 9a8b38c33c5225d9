"""Micro-batches of similar length: how many prompts pass through the language model at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reaemb_bench.machine import Machine


def micro_batch(machine: Machine) -> int:
    """Prompts a forward pass: the machine's setting, or 32 on a CPU and 64 elsewhere."""
    return machine.micro_batch or (32 if machine.torch_device().type == "cpu" else 64)


def by_length(rows: Sequence[Sequence[int]], size: int) -> list[torch.Tensor]:
    """Places of the rows in groups of at most `size`, longest first, so that a group needs little padding."""
    order = sorted(range(len(rows)), key=lambda place: (-len(rows[place]), place))
    return [torch.tensor(order[start : start + size]) for start in range(0, len(order), size)]
