"""One loop for everything that is trained by epochs: a generator, so that the caller logs, validates and stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from reaemb_bench.errors import UserError

B = TypeVar("B")


@dataclass(frozen=True)
class Update:
    """One optimiser step, numbered from 1 over all epochs. loss is the batch's."""

    step: int
    steps: int
    epoch: int
    loss: float
    ends_epoch: bool


def training(
    optimiser: torch.optim.Optimizer,
    epochs: int,
    batches: Callable[[int], Sequence[B]],
    loss: Callable[[B], Tensor],
) -> Iterator[Update]:
    """Yield an Update after each optimiser step.

    batches: the batches of an epoch (numbered from 0). Raises UserError as soon as a loss is not finite.
    """
    step = 0
    for epoch in range(epochs):
        parts = batches(epoch)
        for place, part in enumerate(parts):
            step += 1
            optimiser.zero_grad(set_to_none=True)
            value = loss(part)
            if not torch.isfinite(value):
                raise UserError(
                    f"the loss is {value.item()} in step {step} (epoch {epoch + 1}); lower the learning rate"
                )
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            yield Update(step, epochs * len(parts), epoch, value.item(), place == len(parts) - 1)
