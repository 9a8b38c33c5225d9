"""Numbers that a correct implementation reaches, and how much data it was published on: `expected.toml` beside
recipes, read after them and never part of them, so that no expectation can change a result.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.registry import settings_error
from reaemb_bench.report.table import DECIMALS, Table, number

FILE = "expected.toml"


class Expectation(BaseModel):
    """What one number of a recipe's table must reach."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipes: tuple[str, ...] = Field(min_length=1)
    """Names of the recipes, beside the file, whose tables it speaks of."""
    row: str = ""
    """The floor or step whose number it is; empty takes the recipe's own row."""
    metric: Literal["HR@10", "NDCG@10", "MRR"] = "NDCG@10"
    """Against the whole catalogue."""
    least: float = Field(ge=0, le=1)
    """The lowest value that a correct implementation reaches."""
    most: float = Field(default=1.0, ge=0, le=1)
    """The highest one; above it something leaks or differs."""
    users: int = Field(ge=1)
    """Test users of the data that it holds for; a table over any other number is not compared."""
    source: str
    """Where the number comes from."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.most < self.least:
            raise ValueError(f"most ({self.most}) lies below least ({self.least})")
        return self


class Counts(BaseModel):
    """How much data a recipe must read, after its filters, to be the one that was published."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipes: tuple[str, ...] = Field(min_length=1)
    """Names of the recipes, beside the file, whose data it speaks of."""
    users: int = Field(ge=1)
    """Users, those without a test interaction included."""
    items: int = Field(ge=1)
    """Items with an interaction in any part of the split."""
    interactions: int = Field(ge=1)
    """Interactions in all parts of the split."""
    source: str
    """Where the numbers come from."""

    def in_words(self, facts: Mapping[str, Any]) -> str:
        """How what the data step noted (`users`, `items`, `interactions`) compares with these numbers."""
        published = {name: getattr(self, name) for name in COUNTED}
        if not facts.keys() >= published.keys():
            return f"published counts ({self.source}) not compared: what the data step counted is not in the store"
        off = {name: int(facts[name]) - count for name, count in published.items()}
        if not any(off.values()):
            counts = ", ".join(f"{count:,} {name}" for name, count in published.items())
            return f"counts match those published ({self.source}): {counts}"
        differences = ", ".join(f"{count:+,} {name}" for name, count in off.items() if count)
        return f"counts differ from those published ({self.source}): {differences}"


COUNTED = ("users", "items", "interactions")
"""What is compared of the facts that the data step notes."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    expected: tuple[Expectation, ...] = ()
    counts: tuple[Counts, ...] = ()


_TABLES: dict[str, type[BaseModel]] = {"expected": Expectation, "counts": Counts}


@dataclass(frozen=True)
class Expected:
    """What is expected of one recipe. changed: where the run differs from the recipe, such as `train.epochs=1`."""

    expectations: tuple[Expectation, ...]
    changed: tuple[str, ...] = ()
    counts: tuple[Counts, ...] = ()

    def noted(self, table: Table, users: int, facts: Mapping[str, Any] = MappingProxyType({})) -> Table:
        """The table with a note on each expectation: reached or not, and what was measured on how many test users.

        facts: what the data step noted, with which published counts are compared.
        """
        notes = [*self.counted(facts), *(_note(table, each, users) for each in self.expectations)]
        if notes and self.changed:
            notes.append(f"expected is what the unchanged recipe gives; changed here: {', '.join(self.changed)}")
        return replace(table, notes=(*table.notes, *notes))

    def counted(self, facts: Mapping[str, Any]) -> list[str]:
        """A sentence for each data set that the recipe must read: whether it is this one, by the step's `facts`."""
        return [each.in_words(facts) for each in self.counts]


def read_expected(recipe: Path, changed: Sequence[str] = ()) -> Expected:
    """What `expected.toml` beside the recipe expects of it, which is nothing where there is no such file.

    Raises UserError naming the file and the place of a mistake in it.
    """
    file = recipe.parent / FILE
    if not file.is_file():
        return Expected(())
    try:
        parsed = _File.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file} is no readable TOML: {error}") from None
    except ValidationError as error:
        table = _TABLES.get(str(error.errors()[0]["loc"][0]), _File)
        raise UserError(f"{file}, {settings_error(error, table.model_fields)}") from None
    return Expected(
        tuple(each for each in parsed.expected if recipe.stem in each.recipes),
        tuple(changed),
        tuple(each for each in parsed.counts if recipe.stem in each.recipes),
    )


def changes(sets: Sequence[str], drops: Sequence[str]) -> list[str]:
    """Edits after which the recipe's expected numbers need not hold: all but places of data, which are checked."""
    return [*(text for text in sets if not text.startswith("prepare.source.")), *(f"--drop {path}" for path in drops)]


def _note(table: Table, expectation: Expectation, users: int) -> str:
    bounds = f"at least {number(expectation.least)}"
    if expectation.most < 1:
        bounds = f"{number(expectation.least)} to {number(expectation.most)}"
    whose = f" of {expectation.row}" if expectation.row else ""
    outcome = _outcome(table, expectation, users)
    return f"expected {expectation.metric}{whose} {bounds} ({expectation.source}): {outcome}"


def _outcome(table: Table, expectation: Expectation, users: int) -> str:
    if users != expectation.users:
        return f"not compared, this is other data ({users:,} test users, not {expectation.users:,})"
    place = [column.name for column in table.columns].index(expectation.metric)
    wanted = expectation.row
    cells = [row.cells[place] for row in table.rows if (row.name == wanted if wanted else not row.floor)]
    # Of several judges the last one's number is the recipe's, as in what is tracked.
    value = cells[-1].value if cells else None
    if value is None:
        return "not compared, the table has no such number"
    return f"{_verdict(round(value, DECIMALS), expectation)}, {number(value)}"


def _verdict(shown: float, expectation: Expectation) -> str:
    if shown < expectation.least:
        return "not reached"
    return "above that" if shown > expectation.most else "reached"
