"""The optimisation loop that all training shares, and the checkpoints from which an interrupted training goes on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from reaemb_bench.core.distributed import broadcast, is_first
from reaemb_bench.core.errors import UserError, Whose, check_finite, check_parameters, gradient_norm
from reaemb_bench.core.files import write_atomically

SECONDS = 60.0
"""Least time between two checkpoints."""

Curve = list[dict[str, float]]
"""What was measured in each step."""

_KEPT = 2
_DIGITS_OF_SUM = 16


def training(
    steps: int, learn: Callable[[int], Mapping[str, float]], checkpoints: Checkpoints | None = None
) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields the number of each step, from 1, and what `learn(number)` measured in it; the caller may stop early.

    Steps of the restored checkpoint are not computed again: their values are yielded as they were. Raises UserError
    if a parameter of `checkpoints` is not finite after the last step.
    """
    curve = [] if checkpoints is None else checkpoints.curve
    for step in range(1, steps + 1):
        if step > len(curve):
            curve.append(dict(learn(step)))
            if checkpoints is not None:
                checkpoints.save()
        yield step, curve[step - 1]
    if checkpoints is not None:
        check_parameters(checkpoints.parameters, f"step {steps}")


def update(
    optimiser: torch.optim.Optimizer,
    loss: Tensor,
    where: str,
    numbers: Sequence[int] | npt.NDArray[np.integer] = (),
    *,
    whose: Whose = "item",
    clip_norm: float | None = None,
    learning_rate: float | Sequence[float] | None = None,
) -> float:
    """One optimiser step on the gradients that the parameters hold; returns the loss, which is only checked.

    numbers: the batch's items or users, as `whose` says. clip_norm: largest norm of the whole gradient; None clips
    nothing. learning_rate: of this step, one for all parameter groups or one for each; None keeps the optimiser's.
    Raises NotFiniteError if the loss or the gradient is not finite, before anything is learned from it.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    # Both at once, because a GPU waits each time that a number is asked for.
    measured, norm = torch.stack([loss.detach(), gradient_norm(parameters, clip_norm)]).tolist()
    check_finite("loss", measured, where, numbers, whose)
    check_finite("gradient norm", norm, where, numbers, whose)
    if learning_rate is not None:
        groups = optimiser.param_groups
        rates = [learning_rate] * len(groups) if isinstance(learning_rate, float) else learning_rate
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
    optimiser.step()
    return float(measured)


class Checkpoints:
    """The last two checkpoints of a training: its parameters, the optimiser's moments, and the curve so far.

    A file's name holds the number of steps and the start of its sha256, so that a damaged one is recognised and the
    one before it is used. shared: all processes of the run restore from this folder; process 0 alone writes.
    every: steps of which the last can be a checkpoint, for training that keeps more than its parameters between others.
    """

    def __init__(self, folder: Path, optimiser: torch.optim.Optimizer, *, shared: bool = False, every: int = 1) -> None:
        """Restores the newest checkpoint that is whole; without one, nothing changes and the curve is empty.

        Raises UserError if process 0 finds another checkpoint than this process.
        """
        self._folder = folder
        self._optimiser = optimiser
        self._every = every
        self._last = time.monotonic()
        self.parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        self.curve = self._restore()
        if shared and broadcast(len(self.curve)) != [len(self.curve)]:
            raise UserError("this process finds another checkpoint than process 0; give all hosts the same --store")

    def save(self) -> None:
        """Writes the state after len(curve) steps, unless the last checkpoint is younger than a minute.

        Raises NotFiniteError, and leaves the checkpoints as they are, if a parameter is not finite.
        """
        if not is_first() or time.monotonic() - self._last < SECONDS or len(self.curve) % self._every:
            return
        check_parameters(self.parameters, f"step {len(self.curve)}")
        tensors: dict[str, Tensor] = {}
        for number, parameter in enumerate(self.parameters):
            state = {"parameter": parameter.detach(), **self._optimiser.state[parameter]}
            tensors |= {f"{number}.{name}": value.cpu().contiguous() for name, value in state.items()}
        content = save(tensors, {"curve": json.dumps(self.curve)})
        write_atomically(self._folder / f"checkpoint-{len(self.curve):08}-{_sum(content)}.safetensors", content)
        for file in self._newest_first()[_KEPT:]:
            file.unlink()
        self._last = time.monotonic()

    def _restore(self) -> Curve:
        whole = (file for file in self._newest_first() if file.stem.endswith(_sum(file.read_bytes())))
        file = next(whole, None)
        if file is None:
            return []
        with safe_open(file, framework="pt") as opened:
            curve: Curve = json.loads(opened.metadata()["curve"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dictionary
        for number, parameter in enumerate(self.parameters):
            state = {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{number}.")}
            with torch.no_grad():
                parameter.copy_(state.pop("parameter"))
            # AdamW counts its steps on the CPU and keeps its moments on the parameter's device. These are copies,
            # because what was read is mapped from a file that will be deleted.
            self._optimiser.state[parameter] = {
                name: value.clone() if name == "step" else value.to(parameter.device, copy=True)
                for name, value in state.items()
            }
        return curve

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob("checkpoint-*.safetensors"), reverse=True)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS_OF_SUM]
