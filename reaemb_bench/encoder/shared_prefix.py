"""Prompts before and after a language model has read them: tokens, their shared prefix, states, keys and values.

Shapes: n prompts, L tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Cache = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of each block, each (n, heads, L, head size)."""


@dataclass(frozen=True)
class Reading:
    """How a language model may read prompts, so that a vector depends on its own prompt alone; see `probe`.

    padded: prompts of different lengths in one batch, else of equal lengths. cached: thoughts and EOS continue the
    prompt's keys and values, else the prompt is read again with them. shared: most tokens, thoughts and EOS counted, of
    prompts whose shared prefix is read once for all of them; 0 for none. side_by_side: several thoughts continue a
    prompt at once, each masked from the others.
    """

    padded: bool = True
    cached: bool = True
    shared: int = 0
    side_by_side: bool = False

    def __str__(self) -> str:
        if self.shared:
            return "shared prefixes" if self.side_by_side else "shared prefixes, one thought at a time"
        if self.cached:
            return "whole prompts"
        return "whole prompts, again with each thought" + ("" if self.padded else ", those of one length together")


@dataclass(frozen=True)
class Tokens:
    """Prompts up to but excluding the thought, left-padded: ids (n, L) and mask (n, L), 1 at real tokens.

    numbers: (n,) the prompts' numbers in their training step, which decide their masks of dropout; None counts from 0.
    """

    ids: Tensor
    mask: Tensor
    numbers: Tensor | None = None

    @property
    def rows(self) -> list[list[int]]:
        """The ids of each prompt without padding."""
        return [ids[real].tolist() for ids, real in zip(self.ids, self.mask.bool(), strict=True)]

    @property
    def indices(self) -> Tensor:
        """(n, L), the position of each token among the real tokens of its prompt, 0 at padding."""
        return (self.mask.cumsum(dim=1) - 1).clamp(min=0)

    def some(self, rows: Tensor) -> Tokens:
        """The prompts of the given row numbers, without the columns that none of them needs."""
        mask = self.mask[rows]
        longest = int(mask.sum(dim=1).max())
        numbers = rows if self.numbers is None else self.numbers[rows]
        return Tokens(self.ids[rows, -longest:], mask[:, -longest:], numbers)


@dataclass(frozen=True)
class SharedPrefix:
    """Tokens with which prompts begin, read once for all of them.

    ids: (C,). states: (1, C, d). cache: keys and values of each block, each (1, heads, C, head size).
    """

    ids: Tensor
    states: Tensor
    cache: Cache

    @property
    def tensors(self) -> list[Tensor]:
        """What was computed: states, keys and values."""
        return [self.states, *(tensor for block in self.cache for tensor in block)]

    def detached_copy(self) -> SharedPrefix:
        """The same numbers in tensors that gather gradients of their own, None until something used them.

        What is read after them can then be differentiated piece by piece, and the prefix once, by `backward`.
        """
        states, *blocks = [tensor.detach().requires_grad_() for tensor in self.tensors]
        return SharedPrefix(self.ids, states, tuple(zip(blocks[::2], blocks[1::2], strict=True)))

    def backward(self, copy: SharedPrefix) -> None:
        """Backpropagates the gradients that a detached copy has gathered."""
        pairs = zip(self.tensors, copy.tensors, strict=True)
        used = [(tensor, part.grad) for tensor, part in pairs if part.grad is not None and tensor.requires_grad]
        if used:
            torch.autograd.backward([tensor for tensor, _ in used], [gradient for _, gradient in used])


@dataclass(frozen=True)
class Prefix:
    """Prompts that the language model has read.

    states: (n, L, d) last hidden states. ids, mask: (n, L); the real tokens of a row stand in order, the last of them
    in the last column, with padding before them or after the shared prefix. positions: (n, L), the coordinates that
    the reasoner's rotary embedding uses. cache: keys and values of each block, each (n, heads, L, head size); never
    written to. numbers: see `Tokens`.
    """

    states: Tensor
    ids: Tensor
    mask: Tensor
    positions: Tensor
    cache: Cache
    numbers: Tensor | None = None

    def repeat(self, times: int) -> Prefix:
        """Each prompt `times` in a row: (n, ...) -> (n * times, ...)."""
        tensors = (self.states, self.ids, self.mask, self.positions, *(part for block in self.cache for part in block))
        states, ids, mask, positions, *blocks = [tensor.repeat_interleave(times, dim=0) for tensor in tensors]
        return Prefix(states, ids, mask, positions, tuple(zip(blocks[::2], blocks[1::2], strict=True)))

    def part(self, start: int, stop: int) -> Prefix:
        """The prompts from `start` to before `stop`, as views."""
        some = slice(start, stop)
        cache = tuple((keys[some], values[some]) for keys, values in self.cache)
        return Prefix(self.states[some], self.ids[some], self.mask[some], self.positions[some], cache)


def joined(
    groups: Sequence[Tensor], parts: Sequence[Prefix], common: int, padding: Literal["left", "right"], length: int
) -> Prefix:
    """Prompts that were read in groups, as one batch in the order of their rows, padded to `length` tokens.

    groups: the row numbers of each part's prompts. common: length of the shared prefix. padding: see `coordinates`.
    """

    def join(tensors: Sequence[Tensor], dim: int) -> Tensor:
        widened = []
        for tensor in tensors:
            missing = length - tensor.shape[dim]
            if missing:
                first, rest = torch.split(tensor, [common, tensor.shape[dim] - common], dim)
                zeros = tensor.new_zeros(*tensor.shape[:dim], missing, *tensor.shape[dim + 1 :])
                tensor = torch.cat([first, zeros, rest], dim)
            widened.append(tensor)
        return in_order(groups, torch.cat(widened))

    mask = join([part.mask for part in parts], 1)
    positions = coordinates(mask, (mask.cumsum(dim=1) - 1).clamp(min=0), padding)
    blocks = zip(*(part.cache for part in parts), strict=True)
    cache = tuple((join([keys for keys, _ in block], 2), join([values for _, values in block], 2)) for block in blocks)
    states, ids = join([part.states for part in parts], 1), join([part.ids for part in parts], 1)
    return Prefix(states, ids, mask, positions, cache)


def in_order(groups: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Rows that follow each other group by group, in the order of their row numbers."""
    numbers = torch.cat([*groups])
    if bool((numbers[1:] > numbers[:-1]).all()):
        return rows
    return rows[numbers.argsort().to(rows.device)]


def coordinates(mask: Tensor, indices: Tensor, padding: Literal["left", "right"]) -> Tensor:
    """(n, L), where the reasoner sees each token: after the padding that it had on the stage's side.

    mask: (n, L), 1 at real tokens. indices: (n, L), the position of each token among the real ones of its prompt.
    """
    if padding == "right":
        return indices
    columns = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return torch.where(mask.bool(), indices + mask.shape[1] - mask.sum(dim=1, keepdim=True), columns)
