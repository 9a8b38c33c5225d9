"""Components: frozen settings with behaviour, declared once, built from recipe tables.

A component is a pydantic model. Its fields are its settings (unknown ones are refused), its methods are those of
its kind's protocol, see `kinds.py` of each room. A field that holds another component is annotated with `Pick`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr, field_validator

from reaemb_bench.core.files import contents_of
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
    _code: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("*")
    @classmethod
    def _check_path(cls, value: Any) -> Any:
        if isinstance(value, Path) and any("\0" in part or len(os.fsencode(part)) > 255 for part in value.parts):
            raise ValueError("give a name that a file can have: no NUL, at most 255 bytes between slashes")
        return value

    @property
    def use(self) -> str:
        """The name by which a recipe found this component."""
        return self._use or type(self).__name__

    def spec(self) -> dict[str, Any]:
        """The recipe table that builds this component again, every default written out."""
        return {"use": self.use, **_plain_settings(self, hashed=False)}

    def identity(self) -> dict[str, Any]:
        """What decides this component's results, as plain JSON: name, version, settings, and the code of plug-ins.

        A path stands for the contents of the file or folder that it names, unless its field is marked `NotHashed`.
        """
        # A plug-in file is known by its text, not by the folder in which it lies.
        use = Path(self.use).name if ".py:" in self.use else self.use
        code = {"code": self._code} if self._code else {}
        settings = _plain_settings(self, hashed=True)
        return {"use": use, "version": type(self).version, **settings, **self.fingerprint(), **code}

    def fingerprint(self) -> dict[str, Any]:
        """State outside the settings that decides the results, such as the version of a file that is fetched."""
        return {}

    def obstacle(self, machine: Machine) -> str:
        """What keeps it from running on a machine, in one line with the cure; empty if nothing is known to.

        Asked before anything runs. Paths among the settings that lead nowhere are found without it.
        """
        return ""


@dataclass(frozen=True)
class Foreseen:
    """What is known of an artefact before it is made; None is unknown.

    width: of an encoder's vectors, or of item vectors. thoughts: of an encoder, 0 if it has none.
    """

    width: int | None = None
    thoughts: int | None = None


class Step(Component):
    """A component with a typed `run(artefact, ...) -> artefact`; its type hints say where it stands in the chain."""

    data_access: ClassVar[DataAccess] = "training"
    """The most held-out data that this step may read: `validation` admits ValidationTargets, `test` TestTargets too."""
    leaks: ClassVar[bool] = False
    """True for paper variants that look at held-out data on purpose; a recipe must say `allow_leaks = true`."""
    randomness: ClassVar[Randomness] = "none"
    """Which of a recipe's seeds this step draws from; `none` keeps the seed out of its key."""
    distributed: ClassVar[bool] = False
    """True if all processes of a run call `run` at once, each for its share (see `reaemb_bench.core.distributed`);
    process 0 alone writes, and its result is kept. Any other step runs in process 0 alone."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """What is known of its results, from what is known of its inputs by type; asked when the recipe is planned.

        Raises RecipeError, its path below the step, if the settings do not fit these inputs.
        """
        return Foreseen()


def components_in(component: Component, path: str = "") -> Iterator[tuple[str, Component]]:
    """The component and all that its settings hold, each with its dotted path below `path`."""
    yield path, component
    for name in type(component).model_fields:
        value = getattr(component, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Component):
                yield from components_in(part, f"{path}.{name}")


def _plain_settings(model: BaseModel, *, hashed: bool) -> dict[str, Any]:
    """The settings of a model as plain JSON; if `hashed`, components are their identities and paths their contents."""

    def plain(value: Any, path_hashed: bool) -> Any:
        if isinstance(value, Component):
            return value.identity() if hashed else value.spec()
        if isinstance(value, BaseModel):
            return _plain_settings(value, hashed=hashed)
        if isinstance(value, Mapping):
            return {str(key): plain(part, path_hashed) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [plain(part, path_hashed) for part in value]
        if isinstance(value, Path):
            return contents_of(value) if path_hashed else str(value)
        return value

    return {
        name: plain(
            getattr(model, name), hashed and not any(isinstance(marker, NotHashed) for marker in field.metadata)
        )
        for name, field in type(model).model_fields.items()
    }


@dataclass(frozen=True)
class NotHashed:
    """Field marker of a path whose text enters the key, and not the contents of the file or folder that it names."""

    reason: str


@dataclass(frozen=True)
class Progress:
    """Progress of a step: `done` of `total` units, and the values measured there (loss, ndcg@10, ...).

    unit is named in the plural (steps, epochs, items). phase: what the step does now, in a word or two, if it does
    more than one thing.
    """

    done: int
    total: int
    unit: str
    values: Mapping[str, float] = field(default_factory=dict)
    phase: str = ""


@dataclass(frozen=True)
class Context:
    """What a step gets besides its artefacts, for the parameter of `run` that is annotated with this type.

    seed: derived from the recipe's seed and the step's name. report: takes a Progress, as often as wanted.
    note: keeps facts about the step in its manifest (trained parameters, tokens, items skipped).
    scratch: a folder of this step alone, kept if the run is interrupted, deleted when the step is done.
    """

    seed: int
    machine: Machine
    report: Callable[[Progress], None]
    note: Callable[[Mapping[str, float | int | str]], None]
    scratch: Path

    def phase(self, words: str) -> None:
        """Reports what the step does now, where it has nothing to count."""
        self.report(Progress(0, 0, "", phase=words))
