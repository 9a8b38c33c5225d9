"""Search space files: `[space]` names the settings that vary and their values, `[sweep]` how they are searched."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

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
_GROUPS = ("", "/tail", "/head", "/cold", "/short", "/long")
OBJECTIVES = (*(f"validation/{metric}{group}" for metric in _METRICS for group in _GROUPS), MINUTES)
"""All objectives: metrics of the validation targets, of all users or of a group, and minutes."""

Label = str | int | float | bool
"""What a study remembers of a value: itself, or the text of a table or list."""
Number = StrictInt | StrictFloat
Values = dict[str, Any]
"""Path -> TOML value, in the order of the space."""

_ENDING = ".search.toml"


class Settings(BaseModel):
    """The number of trials, the sampler that proposes them and the pruner that stops them early."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trials: int = Field(default=20, ge=1)
    """Finished trials of the study, by all processes; pruned and failed ones count."""
    sampler: SamplerName = "tpe"
    """Proposes settings."""
    pruner: PrunerName = "median"
    """Stops a trial by its validation curve; only if validation/ndcg@10 is the only objective."""
    objectives: tuple[str, ...] = Field(default=(CURVE,), min_length=1)
    """What is searched for; several give the Pareto front: the trials that no other one beats in all of them."""
    seed: int = 0
    """Seed of the sampler."""

    @field_validator("objectives")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in OBJECTIVES:
                raise ValueError(
                    f"no objective is called '{name}'.{nearest(name, OBJECTIVES)} There is {MINUTES}, and "
                    f"validation/METRIC[/GROUP] with {', '.join(_METRICS)} and {', '.join(g[1:] for g in _GROUPS if g)}"
                )
        if len(set(names)) < len(names):
            raise ValueError("an objective stands twice")
        return names

    @property
    def directions(self) -> list[str]:
        """Whether each objective is maximised or minimised."""
        return ["minimize" if name == MINUTES else "maximize" for name in self.objectives]

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
    twin = file.with_name(file.stem + _ENDING)
    if not twin.is_file():
        raise UserError(f"the recipe has no search space {twin}; write one, or name one with --space")
    return twin


def read_search(file: Path, changes: Raw) -> tuple[Raw, Settings]:
    """Returns the table `[space]` of a file, and `[sweep]` with `changes`. Raises UserError that names the file."""
    shipped = SHIPPED / "recipes" / file
    raw = read_toml(file if file.is_file() or not shipped.is_file() else shipped)
    table: Any = {**raw.pop("sweep", {}), **changes}
    space = raw.pop("space", {})
    try:
        if raw:
            word, known = next(iter(raw)), ("space", "sweep")
            raise RecipeError(f"no table is called '{word}'.{nearest(word, known)} Known: {', '.join(known)}")
        try:
            return space, Settings.model_validate(table)
        except ValidationError as error:
            raise settings_error(error, Settings.model_fields).under("sweep") from None
    except RecipeError as error:
        raise UserError(f"{file}, {error}") from None


class Dimension(BaseModel):
    """The values of one setting: numbers from `low` to `high`, or `choices`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    low: Number | None = None
    """The lowest value; two integer bounds give integers."""
    high: Number | None = None
    """The highest value, included."""
    log: bool = False
    """Whether to sample on a logarithmic scale."""
    step: Number | None = None
    """Distance between neighbouring values, from `low` on."""
    choices: tuple[Any, ...] = ()
    """The values, or components as names or tables; a name alone keeps the recipe's settings of that component."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Earlier paths, and the choice, or list of choices, for which this setting exists."""

    @model_validator(mode="after")
    def _either(self) -> Dimension:
        if self.choices and (self.low, self.high, self.step, self.log) != (None, None, None, False):
            raise ValueError("give choices, or low and high, not both")
        if not self.choices and (self.low is None or self.high is None):
            raise ValueError("give low and high, or choices that are not empty")
        if self.low is not None and self.high is not None:
            self._check_range(self.low, self.high)
        if len({label(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError("a choice stands twice")
        return self

    def _check_range(self, low: float, high: float) -> None:
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("low and high must be finite")
        if low > high:
            raise ValueError(f"low ({low}) is above high ({high})")
        if self.log and (low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError("the step must be above 0")
        if self.whole and self.step is not None and not isinstance(self.step, int):
            raise ValueError("between whole bounds the step is a whole number")

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Any, ...]:
        """Returns the values to check before anything runs: both bounds, or every choice."""
        return self.choices or (self.low, self.high)

    def all(self) -> tuple[Any, ...]:
        """Returns every value. Raises UserError if their number is infinite."""
        if self.choices:
            return self.choices
        assert self.low is not None and self.high is not None
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            raise UserError("a grid needs choices, or a step between low and high, and no log")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.low + number * step for number in range(count))

    def drawn(self, path: str, trial: Trial) -> Any:
        """Returns the value that the trial's sampler proposes."""
        if self.choices:
            by_label = {label(choice): choice for choice in self.choices}
            return by_label[trial.suggest_categorical(path, list(by_label))]
        assert self.low is not None and self.high is not None
        if self.whole:
            return trial.suggest_int(path, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class Space:
    """The dimensions by their path in the recipe; one that depends on others comes after them."""

    dimensions: Mapping[str, Dimension]

    def drawn(self, trial: Trial) -> Values:
        """Returns the values that a trial tries."""
        values: Values = {}
        for path, dimension in self.dimensions.items():
            if _exists(dimension, values):
                values[path] = dimension.drawn(path, trial)
        return values

    def values_of(self, params: Mapping[str, Label]) -> Values:
        """Returns the values that a trial tried, from what its study remembers."""
        values: Values = {}
        for path, dimension in self.dimensions.items():
            if path in params:
                known = {label(choice): choice for choice in dimension.choices}
                values[path] = known.get(params[path], params[path])
        return values

    def grid(self) -> list[Values]:
        """Returns every point. Raises UserError if a dimension has infinitely many values."""
        points: list[Values] = [{}]
        for path, dimension in self.dimensions.items():
            try:
                values = dimension.all()
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
            points = [
                {**point, path: value} if _exists(dimension, point) else point
                for point in points
                for value in (values if _exists(dimension, point) else (None,))
            ]
        return points

    def probes(self) -> Iterator[tuple[str, Values]]:
        """Yields points that together cover every choice and bound, each with the path that it is about."""
        for path, dimension in self.dimensions.items():
            for value in dimension.ends():
                yield path, self._ordered({**self._conditions(path), path: value})
            for other in self.dimensions:
                if path.startswith(f"{other}.") and other not in dimension.when:
                    for choice in self.dimensions[other].choices:
                        above = {**self._conditions(other), **self._conditions(path), other: choice}
                        yield path, self._ordered({**above, path: dimension.ends()[0]})

    def _conditions(self, path: str) -> Values:
        """Returns choices for which the setting at `path` exists."""
        values: Values = {}
        for other, wanted in self.dimensions[path].when.items():
            chosen = next(choice for choice in self.dimensions[other].choices if _meets(choice, wanted))
            values |= {**self._conditions(other), other: chosen}
        return values

    def _ordered(self, values: Values) -> Values:
        return {path: values[path] for path in self.dimensions if path in values}


def label(value: Any) -> Label:
    """Returns what stands for a choice in a study and in tables: itself, or a line of JSON."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value, ensure_ascii=False)


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
        _check_conditions(path, dimension, dimensions)
        dimensions[path] = dimension
    return Space(dimensions)


def _check_conditions(path: str, dimension: Dimension, above: Mapping[str, Dimension]) -> None:
    for other, wanted in dimension.when.items():
        if other not in above:
            raise RecipeError(f"no path above is called '{other}'.{nearest(other, above)}", (path, "when"))
        known = [str(_name(choice)) for choice in above[other].choices]
        for name in wanted if isinstance(wanted, list) else [wanted]:
            if not any(_meets(choice, name) for choice in above[other].choices):
                hint = nearest(str(name), known)
                raise RecipeError(f"{other} has no choice {name!r}.{hint} Choices: {', '.join(known)}", (path, "when"))


def _exists(dimension: Dimension, values: Values) -> bool:
    return all(path in values and _meets(values[path], wanted) for path, wanted in dimension.when.items())


def _meets(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_meets(value, name) for name in wanted)
    return bool(value == wanted or _name(value) == wanted)


def _name(value: Any) -> Any:
    return value.get("use") if isinstance(value, dict) else value
