"""Components: frozen settings with behaviour, declared once, built from recipe tables.

A component is a pydantic model. Its fields are its settings (unknown ones are refused), its methods satisfy one of
the protocols in the `kinds` of its room. A field that holds another component is annotated with `Pick`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr, field_validator

from reaemb_bench.core.machine import Machine

DataAccess = Literal["training", "validation", "test"]
Randomness = Literal["none", "data", "embedder", "recommender"]


class Component(BaseModel):
    """Base of everything a recipe can name: settings that are frozen, validated and part of every store key."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    version: ClassVar[int] = 1
    """Raised whenever the same settings would give other numbers; part of the store key."""

    _use: str = PrivateAttr(default="")
    _code: str = PrivateAttr(default="")

    @field_validator("*")
    @classmethod
    def _of_files_that_can_exist(cls, value: Any) -> Any:
        if isinstance(value, Path) and (
            "\0" in str(value) or any(len(os.fsencode(part)) > 255 for part in value.parts)
        ):
            raise ValueError("give a name that a file can have: no NUL, at most 255 bytes between slashes")
        return value

    @property
    def use(self) -> str:
        """The name under which a recipe found this component."""
        return self._use or type(self).__name__

    def spec(self) -> dict[str, Any]:
        """The recipe table that builds this component again, every default written out."""
        settings = {name: _plain(getattr(self, name), nested="spec") for name in type(self).model_fields}
        return {"use": self.use, **settings}

    def identity(self) -> dict[str, Any]:
        """What decides this component's results, as plain JSON: name, version, settings, and code of plug-in files."""
        settings = {name: _plain(getattr(self, name), nested="identity") for name in type(self).model_fields}
        # A plug-in file is known by its text, not by the folder it happens to lie in.
        use = Path(self.use).name if self._code else self.use
        made = {"use": use, "version": type(self).version, **settings, **self.fingerprint()}
        return {**made, "code": self._code} if self._code else made

    def fingerprint(self) -> dict[str, Any]:
        """State outside the settings that decides the results, such as the sha256 of a file that is read."""
        return {}


class Step(Component):
    """A component with a typed `run(artefact, ...) -> artefact`; see `reaemb_bench.pipeline`."""

    data_access: ClassVar[DataAccess] = "training"
    """The most held-out data that this step may read: `validation`: ValidationTargets, `test`: TestTargets too."""
    leaks: ClassVar[bool] = False
    """True for paper variants that look at held-out data on purpose; a recipe must say `allow_leaks = true`."""
    randomness: ClassVar[Randomness] = "none"
    """Which of a recipe's seeds this step draws from; `none` keeps the seed out of its key."""
    distributed: ClassVar[bool] = False
    """True where all processes of a run call `run` at once, each for its share (see `reaemb_bench.distributed`);
    process 0 alone writes, and its result is kept. Any other step runs in process 0 alone."""


def _plain(value: Any, nested: Literal["spec", "identity"]) -> Any:
    if isinstance(value, Component):
        return value.spec() if nested == "spec" else value.identity()
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name), nested) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(each, nested) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, nested) for each in value]
    if isinstance(value, Path):
        return str(value)
    return value


# What a step is handed beside its artefacts: a seed, the machine, and a way to say how it is getting on.


@dataclass(frozen=True)
class Progress:
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
    report: Callable[[Progress], None]
    note: Callable[[Mapping[str, float | int | str]], None]
    scratch: Path
