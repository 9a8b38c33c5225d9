"""Checkpoints of a reinforcement training: an interrupted run goes on where it was and ends with the same bits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from reaemb_bench.core.errors import check_parameters
from reaemb_bench.rl.prompt_cache import read_sealed, write_sealed

SECONDS = 60.0
"""Least time between two checkpoints."""

_KEPT = 2
_HOLDS = "reinforcement"

Curve = list[dict[str, float]]
"""What was measured in each step."""


class Checkpoints:
    """Parameters, AdamW's moments and the curve after a step, in a folder that keeps the last two of them."""

    def __init__(self, folder: Path, parameters: Sequence[nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        self._folder = folder
        self._parameters = parameters
        self._optimiser = optimiser
        self._last = time.monotonic()

    def save(self, curve: Curve) -> None:
        """Write the state after len(curve) steps, unless the last checkpoint is younger than a minute.

        Raises NotFiniteError, and leaves the checkpoints as they are, where a parameter is not finite.
        """
        if time.monotonic() - self._last < SECONDS:
            return
        check_parameters(self._parameters, f"step {len(curve)}")
        tensors = {
            f"curve.{place}.{name}": torch.tensor([values[name] for values in curve], dtype=torch.float64)
            for place, name in enumerate(curve[0])
        }
        for place, parameter in enumerate(self._parameters):
            state = {"parameter": parameter, **self._optimiser.state[parameter]}
            tensors |= {f"{place}.{name}": value for name, value in state.items()}
        write_sealed(self._folder / f"{len(curve):09}.safetensors", tensors, _HOLDS)
        for old in self._files()[_KEPT:]:
            old.unlink()
        self._last = time.monotonic()

    def restore(self) -> Curve:
        """Put back the newest state that is whole; the curve of its steps, empty where there is none."""
        for file in self._files():
            tensors = read_sealed(file, _HOLDS)
            if tensors is not None:
                return self._put_back(tensors)
        return []

    def _files(self) -> list[Path]:
        """Newest first."""
        return sorted(self._folder.glob("*.safetensors"), reverse=True)

    def _put_back(self, tensors: dict[str, Tensor]) -> Curve:
        for place, parameter in enumerate(self._parameters):
            state = _below(tensors, f"{place}.")
            with torch.no_grad():
                parameter.copy_(state.pop("parameter"))
            # AdamW counts its steps on the CPU and keeps its moments beside the parameter. A copy, for what was read
            # is mapped from a file.
            self._optimiser.state[parameter] = {
                name: value.clone() if name == "step" else value.to(parameter.device, copy=True)
                for name, value in state.items()
            }
        columns = sorted(_below(tensors, "curve.").items())
        names = [name.partition(".")[2] for name, _ in columns]
        steps = zip(*(values.tolist() for _, values in columns), strict=True)
        return [dict(zip(names, values, strict=True)) for values in steps]


def _below(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
