"""Dropout whose masks depend on step, row, token, layer and feature alone, not on the batch in which a row is read.

So any micro-batch, any number of processes and any resumed run draw the same masks, and a forward pass that is
repeated gives the same numbers. Masks are hashes of these coordinates: nothing is drawn in sequence.
Shapes: n rows, L tokens, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SHARED, PROMPT, END, FIRST_PASS = range(4)
"""What a forward pass reads: the shared prefix, prompts, thoughts and EOS, or prompts before they are read again."""

_ODD = (-1640531527, -2048144789, -1028477387, 668265263)
"""Multipliers of the hash, odd, from the golden ratio, MurmurHash3 and xxHash."""


@dataclass
class MaskKeys:
    """The coordinates that all dropout layers of a model share.

    step: a seed, another one for each step of a training. rows: (n,) the numbers, in their step, of the rows that
    `ThoughtModel.tokens` reads next; None counts from 0. current, part: the rows and what is read in this forward pass.
    """

    step: int = 0
    rows: Tensor | None = None
    current: Tensor | None = None
    part: int = PROMPT


class RowDropout(nn.Module):
    """Zeroes a share of (n, L, d) during training and scales the rest, as `nn.Dropout` does; layer: its number."""

    def __init__(self, share: float, layer: int, keys: MaskKeys) -> None:
        super().__init__()
        self.share = share
        self.layer = layer
        self.keys = keys

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, L, d) with some entries 0."""
        if not self.training:
            return inputs
        return inputs.masked_fill(self.dropped(inputs), 0) / (1 - self.share)

    def dropped(self, inputs: Tensor) -> Tensor:
        """(n, L, d), True where an entry is zeroed."""
        keys, (count, length, width) = self.keys, inputs.shape
        rows = torch.arange(count) if keys.current is None else keys.current
        hashed = _mixed(rows.to(inputs.device, torch.int32).mul(_ODD[0]).add_(_wrapped(keys.step)))
        hashed = _mixed(hashed.add_(_wrapped(_ODD[3] * (4 * self.layer + keys.part + 1))))
        # Prompts are padded on the left, so a token's place is counted from the right.
        places = torch.arange(length - 1, -1, -1, dtype=torch.int32, device=inputs.device).mul_(_ODD[0])
        hashed = _mixed(hashed[:, None] + places)
        features = _mixed(torch.arange(1, width + 1, dtype=torch.int32, device=inputs.device).mul_(_ODD[0]))
        # Whole numbers of 32 bits with a sign, of which a share lies below this.
        return _mixed(hashed[..., None] + features) < int(self.share * 2**32) - 2**31


def _mixed(values: Tensor) -> Tensor:
    """Hashes int32 numbers in place; multiplication wraps around."""
    values.bitwise_xor_(values >> 15).mul_(_ODD[1])
    return values.bitwise_xor_(values >> 13).mul_(_ODD[2])


def _wrapped(value: int) -> int:
    """The number as int32 arithmetic has it."""
    return (value + 2**31) % 2**32 - 2**31


def enable_dropout(model: nn.Module) -> None:
    """Puts the dropout of LoRA into training mode, and nothing else: the frozen layers compute as they are used."""
    for module in model.modules():
        if isinstance(module, RowDropout):
            module.train()
