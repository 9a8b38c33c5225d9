"""How a search space is searched: the table `[sweep]` of its file, and what the command line changes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from reaemb_bench.errors import RecipeError, UserError
from reaemb_bench.recipe import SHIPPED, Raw, locate, read_toml
from reaemb_bench.registry import nearest, settings_error
from reaemb_bench.reporting.table import number
from reaemb_bench.tracking.terminal import in_words

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
