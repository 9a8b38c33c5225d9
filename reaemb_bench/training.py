"""One loop for everything that is trained by epochs: a generator, so that the caller logs, validates and stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reaemb_bench.artifacts import Int64
from reaemb_bench.finite import Whose, check_finite, gradient_norm


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
    batches: Callable[[int], Sequence[Int64]],
    loss: Callable[[Int64], Tensor],
    *,
    whose: Whose,
) -> Iterator[Update]:
    """Yield an Update after each optimiser step.

    batches: the batches of an epoch (numbered from 0), each the numbers of items or users, as `whose` says. Raises
    UserError where a loss or a gradient is not finite, before anything is learned from it.
    """
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    step = 0
    for epoch in range(epochs):
        parts = batches(epoch)
        for place, part in enumerate(parts):
            step += 1
            optimiser.zero_grad(set_to_none=True)
            value = loss(part)
            value.backward()  # type: ignore[no-untyped-call]
            # Both at once, because a GPU waits each time that a number is asked for.
            measured, norm = torch.stack([value.detach(), gradient_norm(parameters, None)]).tolist()
            where = f"step {step} (epoch {epoch + 1})"
            check_finite("loss", measured, where, part, whose)
            check_finite("gradient norm", norm, where, part, whose)
            optimiser.step()
            yield Update(step, epochs * len(parts), epoch, measured, place == len(parts) - 1)
