"""Checkpoints of a contrastive training: an interrupted run goes on where it was and ends with the same bits."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from reaemb_bench.files import write_atomically
from reaemb_bench.finite import check_parameters

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
