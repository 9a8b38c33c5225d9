"""Search space files: `[space]` names the settings that vary and their values, `[sweep]` how they are searched."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic import StrictFloat as Float
from pydantic import StrictInt as Int

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.recipe import SHIPPED, Raw, locate, read_toml
from reaemb_bench.core.registry import nearest, settings_error
from reaemb_bench.report.table import number
from reaemb_bench.tracking.terminal import in_words

if TYPE_CHECKING:
    from optuna.trial import Trial

SamplerName = Literal["tpe", "gp", "cmaes", "random", "grid"]
PrunerName = Literal["median", "hyperband", "none"]

CURVE = "validation/ndcg@10"
"""The curve that `train` steps report after every epoch, and that trials are pruned by."""
MINUTES = "minutes"
"""The objective that counts cost."""
_METRICS = [f"{metric}@{k}" for metric in ("ndcg", "hr") for k in (5, 10, 20)] + ["mrr"]
_GROUPS = ("tail", "head", "cold", "short", "long")
_ENDINGS = ("", *(f"/{group}" for group in _GROUPS))
ALIGNMENTS = {
    f"alignment/{kind}_{figure}": direction
    for kind in ("train", "validation", "unseen")
    for figure, direction in (("near", "maximize"), ("percentile", "minimize"))
} | {"alignment/retrieval": "maximize", "alignment/hubness": "minimize"}
"""Objectives that `measure-alignment` gives, before any recommender is trained, and their directions."""
_OBJECTIVES = (*(f"validation/{metric}{ending}" for metric in _METRICS for ending in _ENDINGS), *ALIGNMENTS, MINUTES)

Label = str | int | float | bool
"""What a study remembers of a value: itself, or the text of a table or list."""
Values = dict[str, Any]
"""Path -> TOML value, in the order of the space."""


class Settings(BaseModel):
    """The table `[sweep]`. trials: finished ones of the study, by all processes; pruned and failed ones count.

    sampler: proposes settings. seed: of the sampler. objectives: what is searched for; several give the Pareto front:
    the trials that no other one beats in all of them. pruner: stops a trial by its validation curve, but only if
    validation/ndcg@10 is the only objective.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(default=20, ge=1)
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "median"
    objectives: tuple[str, ...] = Field(default=(CURVE,), min_length=1)
    seed: int = 0

    @field_validator("objectives")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in _OBJECTIVES:
                raise ValueError(
                    f"no objective is called '{name}'.{nearest(name, _OBJECTIVES)} There is {MINUTES}, "
                    f"{', '.join(ALIGNMENTS)}, and validation/METRIC[/GROUP] with {', '.join(_METRICS)} and "
                    f"{', '.join(_GROUPS)}"
                )
        if len(set(names)) < len(names):
            raise ValueError("an objective stands twice")
        return names

    @property
    def directions(self) -> list[str]:
        """Whether each objective is maximised or minimised."""
        return [ALIGNMENTS.get(name, "minimize" if name == MINUTES else "maximize") for name in self.objectives]

    @property
    def on_vectors(self) -> bool:
        """Whether only alignment is searched for, cost aside: it is measured on the vectors, without a recommender."""
        wanted = {*self.objectives} - {MINUTES}
        return bool(wanted) and wanted <= ALIGNMENTS.keys()

    @property
    def prunes(self) -> bool:
        """Whether trials may be stopped by their validation curve."""
        return self.pruner != "none" and self.objectives == (CURVE,)


def shown(value: float, objective: str) -> str:
    """Returns a value of an objective as text."""
    return in_words(60 * value) if objective == MINUTES else number(value)


def twin(recipe: str | Path) -> Path:
    """Returns the space file of a recipe, `NAME.search.toml` next to `NAME.toml`. Raises UserError if it is missing."""
    file = locate(recipe)
    twin = file.with_name(f"{file.stem}.search.toml")
    if not twin.is_file():
        raise UserError(f"the recipe has no search space {twin}; write one, or name one with --space")
    return twin


def read_search(file: Path, changes: Raw) -> tuple[Raw, Settings]:
    """Returns the table `[space]` of a file, and `[sweep]` with `changes`. Raises UserError that names the file."""
    shipped = SHIPPED / "recipes" / file
    raw = read_toml(file if file.is_file() or not shipped.is_file() else shipped)
    table: Any = {**raw.pop("sweep", {}), **changes}
    space = raw.pop("space", {})
    if raw:
        hint = nearest(next(iter(raw)), ("space", "sweep"))
        raise UserError(f"{file}, no table is called '{next(iter(raw))}'.{hint} Known: space, sweep")
    try:
        return space, Settings.model_validate(table)
    except ValidationError as error:
        raise UserError(f"{file}, {settings_error(error, Settings.model_fields).under('sweep')}") from None


class Dimension(BaseModel):
    """The values of one setting: `choices`, or numbers from `low` to `high`, integers if both bounds are.

    log: whether to sample on a logarithmic scale. step: distance between neighbouring values, from `low` on. choices:
    values, or components as names or tables; a name alone keeps the recipe's settings of that component. when: earlier
    paths, and the choice, or list of choices, for which this setting exists.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Int | Float | None = None
    high: Int | Float | None = None
    log: bool = False
    step: Int | Float | None = None
    choices: tuple[Any, ...] = ()
    when: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Dimension:
        low, high, step = self.low, self.high, self.step
        if self.choices:
            faults = {
                "give choices, or low and high, not both": (low, high, step, self.log) != (None, None, None, False),
                "a choice stands twice": len(self.by_label) < len(self.choices),
            }
        elif low is None or high is None:
            faults = {"give low and high, or choices that are not empty": True}
        else:
            faults = {
                "low and high must be finite": not (math.isfinite(low) and math.isfinite(high)),
                f"low ({low}) is above high ({high})": low > high,
                "log needs a low above 0, and no step": self.log and (low <= 0 or step is not None),
                "the step must be above 0": step is not None and step <= 0,
                "between whole bounds the step is a whole number": self.whole and isinstance(step, float),
            }
        for message, applies in faults.items():
            if applies:
                raise ValueError(message)
        return self

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def by_label(self) -> dict[Label, Any]:
        """What stands for a choice in a study and in tables -> the choice: itself, or as a line of JSON."""
        choices = self.choices
        labels = [choice if isinstance(choice, Label) else json.dumps(choice, ensure_ascii=False) for choice in choices]
        return dict(zip(labels, choices, strict=True))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values to check before anything runs: both bounds, or every choice."""
        return self.choices or (self.low, self.high)

    def all(self, path: str) -> tuple[Any, ...]:
        """Returns every value. Raises UserError if their number is infinite."""
        if self.choices:
            return self.choices
        assert self.low is not None and self.high is not None
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            raise UserError(f"{path}: a grid needs choices, or a step between low and high, and no log")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.low + number * step for number in range(count))

    def drawn(self, path: str, trial: Trial) -> Any:
        """Returns the value that the trial's sampler proposes."""
        if self.choices:
            return self.by_label[trial.suggest_categorical(path, list(self.by_label))]
        assert self.low is not None and self.high is not None
        if self.whole:
            return trial.suggest_int(path, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log)

    def exists(self, values: Values) -> bool:
        """Returns whether the setting is there, given the values of those above it."""
        return all(path in values and _meets(values[path], wanted) for path, wanted in self.when.items())


def _meets(choice: Any, wanted: Any) -> bool:
    """Whether a choice is the wanted one or one of the wanted ones: the whole choice or the component's name."""
    known = (choice, choice.get("use") if isinstance(choice, dict) else choice)
    return any(name in known for name in (wanted if isinstance(wanted, list) else [wanted]))


@dataclass(frozen=True)
class Space:
    """The dimensions by their path in the recipe; one that depends on others comes after them."""

    dimensions: Mapping[str, Dimension]

    def drawn(self, trial: Trial) -> Values:
        """Returns the values that a trial tries."""
        values: Values = {}
        for path, dimension in self.dimensions.items():
            if dimension.exists(values):
                values[path] = dimension.drawn(path, trial)
        return values

    def values_of(self, params: Mapping[str, Label]) -> Values:
        """Returns the values that a trial tried, from what its study remembers."""
        tried = {path: dimension for path, dimension in self.dimensions.items() if path in params}
        return {path: dimension.by_label.get(params[path], params[path]) for path, dimension in tried.items()}

    def grid(self) -> list[Values]:
        """Returns every point. Raises UserError if a dimension has infinitely many values."""
        points: list[Values] = [{}]
        for path, dimension in self.dimensions.items():
            values = dimension.all(path)
            points = [
                wider
                for point in points
                for wider in ([{**point, path: value} for value in values] if dimension.exists(point) else [point])
            ]
        return points

    def probes(self) -> Iterator[tuple[str, Values]]:
        """Yields points that together cover every choice and bound, each with the path that it is about."""
        for path, dimension in self.dimensions.items():
            points = [{**self._conditions(path), path: value} for value in dimension.ends]
            for other, above in self.dimensions.items():
                if path.startswith(f"{other}.") and other not in dimension.when:
                    needed = {**self._conditions(other), **self._conditions(path), path: dimension.ends[0]}
                    points += [{**needed, other: choice} for choice in above.choices]
            for point in points:
                yield path, {known: point[known] for known in self.dimensions if known in point}

    def _conditions(self, path: str) -> Values:
        """Returns choices for which the setting at `path` exists."""
        values: Values = {}
        for other, wanted in self.dimensions[path].when.items():
            chosen = next(choice for choice in self.dimensions[other].choices if _meets(choice, wanted))
            values |= {**self._conditions(other), other: chosen}
        return values


def read_space(raw: Raw) -> Space:
    """Returns the space of the table `[space]`. Raises RecipeError that names the path."""
    if not raw:
        raise RecipeError('add at least one setting, such as "train.learning_rate" = { low = 1e-4, high = 1e-2 }')
    dimensions: dict[str, Dimension] = {}
    for path, table in raw.items():
        if "." not in path:
            raise RecipeError(f'write the whole path in quotes: "{path}.SETTING" = {{ low = 1, high = 2 }}', (path,))
        try:
            dimension = Dimension.model_validate(table)
        except ValidationError as error:
            raise settings_error(error, Dimension.model_fields).under(path) from None
        for other, wanted in dimension.when.items():
            if other not in dimensions:
                raise RecipeError(f"no path above is called '{other}'.{nearest(other, dimensions)}", (path, "when"))
            choices = dimensions[other].choices
            known = [str(choice.get("use") if isinstance(choice, dict) else choice) for choice in choices]
            for name in wanted if isinstance(wanted, list) else [wanted]:
                if not any(_meets(choice, name) for choice in choices):
                    listed = f"{nearest(str(name), known)} Choices: {', '.join(known)}"
                    raise RecipeError(f"{other} has no choice {name!r}.{listed}", (path, "when"))
        dimensions[path] = dimension
    return Space(dimensions)


def as_tables(raw: Raw, values: Values) -> list[Raw]:
    """Returns the tables that set these values in a recipe, one per path.

    raw: the recipe, with every default. A choice that only names a component keeps the recipe's settings of it.
    """
    tables = []
    for path, value in values.items():
        parts, current = path.split("."), raw
        for part in parts:
            current = current.get(part, {}) if isinstance(current, dict) else {}
        table = {"use": value} if isinstance(value, str) and isinstance(current, dict) and current else value
        for part in reversed(parts):
            table = {part: table}
        tables.append(table)
    return tables
