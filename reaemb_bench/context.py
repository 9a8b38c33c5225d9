"""What a step is handed beside its artefacts: a seed, the machine, and a way to say how it is getting on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reaemb_bench.machine import Machine


@dataclass(frozen=True)
class Tick:
    """Progress of a step: `done` of `total` units, and the values measured there (loss, ndcg@10, ...).

    unit is named in the plural (steps, epochs, items).
    """

    done: int
    total: int
    unit: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """Handed to `run` by the pipeline, for the parameter annotated with this type.

    seed: derived from the recipe's seed and the step's name. report: takes ticks, as often as wanted.
    note: remembers facts about the step in its manifest (trained parameters, tokens, items skipped).
    scratch: a folder of this step alone, kept if the run is interrupted, deleted once the step is done.
    """

    seed: int
    machine: Machine
    report: Callable[[Tick], None]
    note: Callable[[Mapping[str, float | int | str]], None]
    scratch: Path
