"""Prompts that a frozen language model has read, kept in memory: what it says about them never changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reaemb_bench.artifacts import Int64
from reaemb_bench.encoding.model import Prefix, ThoughtModel


@dataclass(frozen=True)
class _Read:
    """One prompt without padding. states: (L, d). cache: (2 * blocks, heads, L, head size), keys before values."""

    states: Tensor
    cache: Tensor

    @property
    def size(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.states, self.cache))


class Prompts:
    """The prompts of all items, read at first use.

    rows: token ids of every item's prompt. micro_batch: prompts read at once. limit: bytes of main memory for what
    was read; once it is full, further prompts are read again whenever they are needed.
    """

    def __init__(self, model: ThoughtModel, rows: Sequence[Sequence[int]], micro_batch: int, limit: float) -> None:
        self._model = model
        self._rows = rows
        self._micro_batch = micro_batch
        self._limit = limit
        self._kept: dict[int, _Read] = {}
        self.size = 0
        """Bytes in use."""
        self.reads = 0
        """Prompts that passed through the language model so far."""

    def __call__(self, items: Int64) -> Prefix:
        """The prompts of `items` (n,) as one left-padded batch on the model's device, without gradient."""
        found = {item: self._kept[item] for item in items.tolist() if item in self._kept}
        missing = sorted({*items.tolist()} - {*found}, key=lambda item: (len(self._rows[item]), item))
        for start in range(0, len(missing), self._micro_batch):
            some = missing[start : start + self._micro_batch]
            for item, read in zip(some, self._read(some), strict=True):
                found[item] = read
                if self.size + read.size <= self._limit:
                    self._kept[item] = read
                    self.size += read.size
        return self._batch(items.tolist(), found)

    @torch.no_grad()
    def _read(self, items: Sequence[int]) -> Iterator[_Read]:
        prefix = self._model.prefix(self._model.tokens([self._rows[item] for item in items]))
        self.reads += len(items)
        cache = torch.stack([tensor for block in prefix.cache for tensor in block], dim=1)
        for place, real in enumerate(prefix.mask.bool()):
            # Selecting by mask copies, so that the padded batch can be freed.
            yield _Read(prefix.states[place, real].cpu(), cache[place, :, :, real].cpu())

    def _batch(self, items: Sequence[int], reads: dict[int, _Read]) -> Prefix:
        tokens = self._model.tokens([self._rows[item] for item in items])
        count, longest = tokens.ids.shape
        like = reads[items[0]]
        states = like.states.new_zeros(count, longest, like.states.shape[1])
        parts, heads, _, head = like.cache.shape
        cache = like.cache.new_zeros(count, parts, heads, longest, head)
        for place, item in enumerate(items):
            start = longest - len(self._rows[item])
            states[place, start:] = reads[item].states
            cache[place, :, :, start:] = reads[item].cache
        cache = cache.to(self._model.device)
        blocks = tuple((cache[:, part], cache[:, part + 1]) for part in range(0, parts, 2))
        # As `ThoughtModel.prefix` counts them: right padding would leave a prompt's first token at 0.
        columns = torch.arange(longest, device=tokens.ids.device).expand_as(tokens.ids)
        positions = tokens.indices if self._model.template.padding == "right" else columns
        return Prefix(states.to(self._model.device), tokens.ids, tokens.mask, positions, blocks)
