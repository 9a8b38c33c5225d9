"""One loop for everything that is trained by epochs: a generator, so that the caller logs, validates and stops."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Int64
from reaemb_bench.core.errors import Whose, check_finite, check_parameters, gradient_norm
from reaemb_bench.core.files import write_atomically


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


# Checkpoints of a contrastive training: an interrupted run goes on where it was and ends with the same bits.


SECONDS = 60.0
"""Least time between two checkpoints."""

Curve = list[tuple[float, float]]
"""Loss and temperature after each step."""

_KEPT = 2
_DIGITS_OF_SUM = 16


class Checkpoints:
    """The last two checkpoints of a training, each with parameters, AdamW's moments, the loss curve, a token count.

    A file's name says after how many steps it was written, and the start of its own sha256, so that one that a disk
    has damaged is known and the one before it is used.
    """

    def __init__(self, folder: Path, parameters: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        self._folder = folder
        self._parameters = parameters
        self._optimiser = optimiser
        self._last = time.monotonic()

    def save(self, curve: Curve, tokens: int) -> None:
        """Write the state after len(curve) steps, unless the last checkpoint is younger than a minute.

        Raises NotFiniteError, and leaves the checkpoints as they are, where a parameter is not finite.
        """
        if time.monotonic() - self._last < SECONDS:
            return
        check_parameters(self._parameters, f"step {len(curve)}")
        tensors = {"curve": torch.tensor(curve, dtype=torch.float64), "tokens": torch.tensor(tokens)}
        for place, parameter in enumerate(self._parameters):
            tensors[f"{place}.parameter"] = parameter.detach()
            for name, value in self._optimiser.state[parameter].items():
                tensors[f"{place}.{name}"] = value
        content = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
        write_atomically(self._folder / f"checkpoint-{len(curve):08}-{_sum(content)}.safetensors", content)
        for file in self._newest_first()[_KEPT:]:
            file.unlink()
        self._last = time.monotonic()

    def restore(self) -> tuple[Curve, int]:
        """Put back what was saved last and is whole; the curve of the steps done so far and the tokens.

        Without such a checkpoint nothing is changed, and the curve is empty.
        """
        for file in self._newest_first():
            content = file.read_bytes()
            if file.stem.endswith(_sum(content)):
                return self._put_back(load(content))
        return [], 0

    def _put_back(self, tensors: dict[str, Tensor]) -> tuple[Curve, int]:
        for place, parameter in enumerate(self._parameters):
            state = _below(tensors, f"{place}.")
            with torch.no_grad():
                parameter.copy_(state.pop("parameter"))
            # AdamW counts its steps on the CPU and keeps its moments beside the parameter.
            self._optimiser.state[parameter] = {
                name: value if name == "step" else value.to(parameter.device) for name, value in state.items()
            }
        return [(loss, temperature) for loss, temperature in tensors["curve"].tolist()], int(tensors["tokens"])

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint-*.safetensors"), reverse=True)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS_OF_SUM]


def _below(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
