"""Checkpoints of a contrastive training: an interrupted run goes on where it was and ends with the same bits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from reaemb_bench.files import write_atomically

SECONDS = 60.0
"""Least time between two checkpoints."""

Curve = list[tuple[float, float]]
"""Loss and temperature after each step."""


class Checkpoint:
    """One file that holds parameters, AdamW's moments, the loss curve and a count of tokens."""

    def __init__(self, file: Path, parameters: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        self._file = file
        self._parameters = parameters
        self._optimiser = optimiser
        self._last = time.monotonic()

    def save(self, curve: Curve, tokens: int) -> None:
        """Write the state after len(curve) steps, unless the last checkpoint is younger than a minute."""
        if time.monotonic() - self._last < SECONDS:
            return
        tensors = {"curve": torch.tensor(curve, dtype=torch.float64), "tokens": torch.tensor(tokens)}
        for place, parameter in enumerate(self._parameters):
            tensors[f"{place}.parameter"] = parameter.detach()
            for name, value in self._optimiser.state[parameter].items():
                tensors[f"{place}.{name}"] = value
        write_atomically(self._file, save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
        self._last = time.monotonic()

    def restore(self) -> tuple[Curve, int]:
        """Put back what was saved; the curve of the steps done so far (empty without a checkpoint) and the tokens."""
        if not self._file.is_file():
            return [], 0
        tensors = load_file(self._file)
        for place, parameter in enumerate(self._parameters):
            state = _below(tensors, f"{place}.")
            with torch.no_grad():
                parameter.copy_(state.pop("parameter"))
            # AdamW counts its steps on the CPU and keeps its moments beside the parameter.
            self._optimiser.state[parameter] = {
                name: value if name == "step" else value.to(parameter.device) for name, value in state.items()
            }
        return [(loss, temperature) for loss, temperature in tensors["curve"].tolist()], int(tensors["tokens"])


def _below(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
