"""How much memory a language model takes, estimated upwards from its sizes, and micro-batches that fit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reaemb_bench.core.machine import Machine

_START_FLOPS = {"cpu": 1e7}
"""Multiplications and additions that could be done in the time that one block takes to start, by device."""
_START_FLOPS_ELSEWHERE = 3e10
_SMALLEST = 32
"""Tokens below which matrices are too small to be multiplied at full speed."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder with gated feed-forward layers, such as Llama and Qwen2.

    inner: width of the feed-forward layers. key_heads: heads of keys and values. tied: the vocabulary head is the
    table of input embeddings. kept: bytes of one number.
    """

    width: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    kept: int = 4

    @classmethod
    def of(cls, config: Any, kept: int) -> Shape:
        """The shape in a transformers configuration; of sizes that differ from block to block, the largest."""
        text = config.get_text_config()

        def size(name: str, default: int) -> int:
            try:
                values = getattr(text, name, None) or default
            except RuntimeError:
                # What transformers raises if blocks differ.
                values = [getattr(block, name, None) or default for block in text.per_layer_config]
            return max(values) if isinstance(values, list | tuple) else int(values)

        heads = size("num_attention_heads", 1)
        return cls(
            width=text.hidden_size,
            inner=size("intermediate_size", 4 * text.hidden_size),
            layers=text.num_hidden_layers,
            heads=heads,
            key_heads=size("num_key_value_heads", heads),
            head_size=size("head_dim", text.hidden_size // heads),
            vocabulary=text.vocab_size,
            tied=bool(getattr(text, "tie_word_embeddings", True)),
            kept=kept,
        )

    @property
    def block_weights(self) -> int:
        """Weights of the matrices of one block."""
        attention = 2 * self.width * self.head_size * (self.heads + self.key_heads)
        return attention + 3 * self.width * self.inner

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        tables = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.kept * (self.layers * self.block_weights + tables)

    @property
    def cached_token(self) -> int:
        """Bytes of a token's last hidden state and of its keys and values in every block."""
        return self.kept * (self.width + 2 * self.layers * self.key_heads * self.head_size)

    @property
    def read_token(self) -> int:
        """Bytes that reading a token takes while it passes, its keys and values and copies of them included."""
        return 3 * self.cached_token + self.kept * (8 * self.width + 4 * self.inner)

    @property
    def learnt_token(self) -> int:
        """Bytes that a token's graph keeps for the backward pass, LoRA on all layers, dropout included."""
        return 2 * self.cached_token + self.kept * self.layers * (17 * self.width + 6 * self.inner)

    def start(self, device: str) -> int:
        """How many tokens could be computed at least in the time that one more pass takes to start."""
        spare = _START_FLOPS.get(device, _START_FLOPS_ELSEWHERE)
        return _SMALLEST + round(spare / (2 * self.block_weights))


def free_memory(device: str) -> int:
    """Bytes that are free on a torch device (`cpu`, `cuda`, `cuda:1`), 0 if that is unknown."""
    if device.startswith("cuda"):
        # The real one: `plan` imports this file without torch.
        from torch import cuda

        free, _ = cuda.mem_get_info(device)
        # What torch holds and does not use is free too.
        return free + cuda.memory_reserved(device) - cuda.memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return 0


# Micro-batches of similar length: how many prompts pass through the language model at once.


MICRO_BATCH = 64
"""Prompts a pass, unless the machine settings say otherwise or memory is short."""
_SHARE = 0.5
"""Share of the free memory that one micro-batch may take; the rest is for what is not counted."""


def micro_batch(machine: Machine, shape: Shape, longest: int, *, learns: bool) -> int:
    """Prompts a pass: the machine's setting, or 64, halved until they fit into memory.

    longest: tokens of the longest prompt. learns: a graph is kept for the backward pass. Halving is rare and coarse,
    so that the same machine gives the same bits.
    """
    if machine.micro_batch is not None:
        return machine.micro_batch
    size = MICRO_BATCH
    limit = _SHARE * free_memory(machine.device_name()) or float("inf")
    per_prompt = longest * (shape.learnt_token if learns else shape.read_token)
    while size > 1 and size * per_prompt > limit:
        size //= 2
    return size


def graphs_that_fit(sizes: Sequence[int], shape: Shape, device: str) -> int:
    """How many groups, counted from the last, can keep their graph until the backward pass; at least one.

    sizes: tokens of each group, padding included. Results do not depend on it.
    """
    limit = _SHARE * free_memory(device)
    needed = np.cumsum(np.asarray(sizes[::-1], dtype=np.float64)) * shape.learnt_token
    return max(1, int((needed <= limit).sum()))


def in_turn(lengths: Sequence[int], size: int) -> list[torch.Tensor]:
    """Row numbers of prompts in micro-batches of `size` (the last may be smaller), longest first."""
    order = torch.tensor(_longest_first(lengths), dtype=torch.long)
    return [*torch.split(order, size)] if len(order) else []


def by_length(lengths: Sequence[int], size: int, start: int) -> list[torch.Tensor]:
    """Row numbers of prompts in groups of at most `size`, longest first, that cost least in all.

    A group costs the tokens of its longest prompt times its number of prompts, and `start` tokens for starting it.
    """
    order = _longest_first(lengths)
    falling = np.array([lengths[row] for row in order], dtype=np.int64)
    # cost[k]: the lowest cost of the first k prompts; first[k]: where the last of their groups begins.
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
    return sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
