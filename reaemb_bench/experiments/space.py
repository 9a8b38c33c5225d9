"""How a search space is searched: the table `[sweep]` of its file, and what the command line changes in it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
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
from reaemb_bench.core.recipe import SHIPPED, Raw, locate, merge, read_toml
from reaemb_bench.core.registry import nearest, settings_error
from reaemb_bench.report.table import number
from reaemb_bench.tracking.terminal import in_words

if TYPE_CHECKING:
    from optuna.trial import Trial


SamplerName = Literal["tpe", "gp", "cmaes", "random", "grid"]
PrunerName = Literal["median", "hyperband", "none"]

CURVE = "validation/ndcg@10"
"""What `train` steps report after every epoch, and what a trial is pruned by."""
MINUTES = "minutes"
"""The objective that counts cost."""

_METRICS = [f"{metric}@{k}" for metric in ("ndcg", "hr") for k in (5, 10, 20)] + ["mrr"]
_GROUPS = ("", "/tail", "/head", "/cold", "/short", "/long")
OBJECTIVES = (*(f"validation/{metric}{group}" for metric in _METRICS for group in _GROUPS), MINUTES)
"""What can be asked for: metrics of the validation targets, of all users or of a group, and minutes."""

_ENDING = ".search.toml"


class Settings(BaseModel):
    """How many trials there are, who proposes them and who stops them early."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trials: int = Field(default=20, ge=1)
    """Finished trials of the study, whoever computes them; pruned and failed ones count."""
    sampler: SamplerName = "tpe"
    """Who proposes settings."""
    pruner: PrunerName = "median"
    """Who stops a trial by its validation curve; with any other objective than validation/ndcg@10 alone nobody does."""
    objectives: tuple[str, ...] = Field(default=(CURVE,), min_length=1)
    """What counts; with several, the trials that no other one beats in all of them."""
    seed: int = 0
    """Of the sampler."""

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
        """Whether more or less of each objective is better."""
        return ["minimize" if name == MINUTES else "maximize" for name in self.objectives]

    @property
    def prunes(self) -> bool:
        """Whether trials may be stopped by their validation curve."""
        return self.pruner != "none" and self.objectives == (CURVE,)


def shown(value: float, objective: str) -> str:
    """A value of an objective as people read it."""
    return in_words(60 * value) if objective == MINUTES else number(value)


def twin(recipe: str | Path) -> Path:
    """The space file beside a recipe, `NAME.search.toml` beside `NAME.toml`. Raises UserError where there is none."""
    file = locate(recipe)
    beside = file.with_name(file.stem + _ENDING)
    if not beside.is_file():
        raise UserError(f"there is no search space {beside} beside the recipe; write one, or name one with --space")
    return beside


def read_search(file: Path, changes: Raw) -> tuple[Raw, Settings]:
    """The table `[space]` of a file, and `[sweep]` with `changes` in it. Raises UserError that names the file."""
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


# Search spaces: which settings of a recipe vary, between what bounds or among which choices, read from TOML.


Label = str | int | float | bool
"""What a study remembers of a value: itself, or its text where it is a table or a list."""


Number = StrictInt | StrictFloat


class Dimension(BaseModel):
    """What one setting may be: a number from `low` to `high`, or one of `choices`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    low: Number | None = None
    """The least value; two whole bounds are a whole number."""
    high: Number | None = None
    """The greatest value, itself included."""
    log: bool = False
    """Whether orders of magnitude are equally likely, not values."""
    step: Number | None = None
    """Distance of neighbouring values, from `low` on."""
    choices: tuple[Any, ...] = ()
    """The values, or components as names or tables; a name alone keeps the recipe's settings of that component."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Paths that stand above this one, and the choice, or list of choices, at which this setting exists."""

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
        """Whether its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Any, ...]:
        """The values to try before anything runs: both bounds, or every choice."""
        return self.choices or (self.low, self.high)

    def all(self) -> tuple[Any, ...]:
        """Every value it can take. Raises UserError where there is no end of them."""
        if self.choices:
            return self.choices
        assert self.low is not None and self.high is not None
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            raise UserError("a grid needs choices, or a step between low and high, and no log")
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return tuple(self.low + place * step for place in range(count))

    def drawn(self, path: str, trial: Trial) -> Any:
        """The value that the trial's sampler proposes."""
        if self.choices:
            by_label = {label(choice): choice for choice in self.choices}
            return by_label[trial.suggest_categorical(path, list(by_label))]
        assert self.low is not None and self.high is not None
        if self.whole:
            return trial.suggest_int(path, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(path, self.low, self.high, step=self.step, log=self.log)


Values = dict[str, Any]
"""Path -> TOML value, in the order of the space."""


@dataclass(frozen=True)
class Space:
    """The dimensions by their path in the recipe; one that depends on others stands below them."""

    dimensions: Mapping[str, Dimension]

    def drawn(self, trial: Trial) -> Values:
        """What a trial tries."""
        values: Values = {}
        for path, dimension in self.dimensions.items():
            if _exists(dimension, values):
                values[path] = dimension.drawn(path, trial)
        return values

    def named(self, params: Mapping[str, Label]) -> Values:
        """What a trial tried, from what its study remembers of it."""
        made: Values = {}
        for path, dimension in self.dimensions.items():
            if path in params:
                known = {label(choice): choice for choice in dimension.choices}
                made[path] = known.get(params[path], params[path])
        return made

    def grid(self) -> list[Values]:
        """Every point. Raises UserError where a dimension has no end of values."""
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
        """Points that together hold every choice and bound, each with the path that it is about."""
        for path, dimension in self.dimensions.items():
            for value in dimension.ends():
                yield path, self._ordered({**self._conditions(path), path: value})
            for other in self.dimensions:
                if path.startswith(f"{other}.") and other not in dimension.when:
                    for choice in self.dimensions[other].choices:
                        above = {**self._conditions(other), **self._conditions(path), other: choice}
                        yield path, self._ordered({**above, path: dimension.ends()[0]})

    def _conditions(self, path: str) -> Values:
        """Choices at which the setting at `path` exists."""
        made: Values = {}
        for other, wanted in self.dimensions[path].when.items():
            chosen = next(each for each in self.dimensions[other].choices if _meets(each, wanted))
            made |= {**self._conditions(other), other: chosen}
        return made

    def _ordered(self, values: Values) -> Values:
        return {path: values[path] for path in self.dimensions if path in values}


def label(value: Any) -> Label:
    """What stands for a choice in a study and in tables: itself, or a line of JSON."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value, ensure_ascii=False)


def applied(raw: Raw, values: Values) -> Raw:
    """The recipe with these values laid over it, as `--set` does."""
    for path, value in values.items():
        named = {"use": value} if isinstance(value, str) and isinstance(_at(raw, path), dict) else value
        raw = merge(raw, reduce(lambda inner, part: {part: inner}, reversed(path.split(".")), named))
    return raw


def read_space(raw: Raw) -> Space:
    """The space of the table `[space]`. Raises RecipeError that names the path."""
    if not raw:
        raise RecipeError('add at least one setting, such as "train.learning_rate" = { low = 1e-4, high = 1e-2 }')
    dimensions: dict[str, Dimension] = {}
    for path, table in raw.items():
        if "." not in path:
            raise RecipeError(f'write the whole path in quotes: "{path}.SETTING" = {{ low = 1, high = 2 }}', (path,))
        try:
            made = Dimension.model_validate(table)
        except ValidationError as error:
            raise settings_error(error, Dimension.model_fields).under(path) from None
        _check_conditions(path, made, dimensions)
        dimensions[path] = made
    return Space(dimensions)


def _check_conditions(path: str, dimension: Dimension, above: Mapping[str, Dimension]) -> None:
    for other, wanted in dimension.when.items():
        if other not in above:
            raise RecipeError(f"no path above is called '{other}'.{nearest(other, above)}", (path, "when"))
        known = [str(_name(choice)) for choice in above[other].choices]
        for each in wanted if isinstance(wanted, list) else [wanted]:
            if not any(_meets(choice, each) for choice in above[other].choices):
                hint = nearest(str(each), known)
                raise RecipeError(f"{other} has no choice {each!r}.{hint} Choices: {', '.join(known)}", (path, "when"))


def _exists(dimension: Dimension, values: Values) -> bool:
    return all(path in values and _meets(values[path], wanted) for path, wanted in dimension.when.items())


def _meets(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_meets(value, each) for each in wanted)
    return bool(value == wanted or _name(value) == wanted)


def _name(value: Any) -> Any:
    return value.get("use") if isinstance(value, dict) else value


def _at(raw: Raw, path: str) -> Any:
    value: Any = raw
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
