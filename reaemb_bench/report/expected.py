"""Numbers that a correct implementation reaches, and how much data a recipe must read: `expected.toml` next to recipes.

It is read after a recipe and is not a part of it, so no expectation can change a result.
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


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipes: tuple[str, ...] = Field(min_length=1)
    """Names of the recipes, next to the file, that it is for."""
    source: str
    """Where the numbers come from."""


class Expectation(_Entry):
    """What one number of a recipe's table must reach."""

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

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.most < self.least:
            raise ValueError(f"most ({self.most}) lies below least ({self.least})")
        return self

    def note(self, table: Table, users: int) -> str:
        """Whether the table reaches it, and what was measured on how many test users."""
        rows = [row for row in table.rows if (row.name == self.row if self.row else not row.floor)]
        if users != self.users:
            outcome = f"not compared, this is other data ({users:,} test users, not {self.users:,})"
        else:
            column = [column.name for column in table.columns].index(self.metric)
            # Of several judges the last one's number is the recipe's, as in what is tracked.
            value = rows[-1].cells[column].value if rows else None
            outcome = "not compared, the table has no such number"
            if value is not None:
                shown = round(value, DECIMALS)
                verdict = "not reached" if shown < self.least else "above that" if shown > self.most else "reached"
                outcome = f"{verdict}, {number(value)}"
        bounds = f"at least {number(self.least)}" if self.most == 1 else f"{number(self.least)} to {number(self.most)}"
        whose = f" of {self.row}" if self.row else ""
        return f"expected {self.metric}{whose} {bounds} ({self.source}): {outcome}"


class Counts(_Entry):
    """How much data a recipe must read, after its filters, to be the one that was published."""

    users: int = Field(ge=1)
    """Users, including those without a test interaction."""
    items: int = Field(ge=1)
    """Items with an interaction in any part of the split."""
    interactions: int = Field(ge=1)
    """Interactions in all parts of the split."""

    def in_words(self, facts: Mapping[str, Any]) -> str:
        """How the facts of the data step (`users`, `items`, `interactions`) compare with these numbers."""
        published = {"users": self.users, "items": self.items, "interactions": self.interactions}
        if not facts.keys() >= published.keys():
            return f"published counts ({self.source}) not compared: what the data step counted is not in the store"
        off = {name: int(facts[name]) - count for name, count in published.items()}
        if not any(off.values()):
            counts = ", ".join(f"{count:,} {name}" for name, count in published.items())
            return f"counts match those published ({self.source}): {counts}"
        differences = ", ".join(f"{count:+,} {name}" for name, count in off.items() if count)
        return f"counts differ from those published ({self.source}): {differences}"


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    expected: tuple[Expectation, ...] = ()
    counts: tuple[Counts, ...] = ()


@dataclass(frozen=True)
class Expected:
    """What is expected of one recipe. changed: how the run differs from the recipe, such as `train.epochs=1`."""

    expectations: tuple[Expectation, ...]
    changed: tuple[str, ...] = ()
    counts: tuple[Counts, ...] = ()

    def noted(self, table: Table, users: int, facts: Mapping[str, Any] = MappingProxyType({})) -> Table:
        """The table with a note on each expectation. users: test users. facts: of the data step."""
        notes = [*self.counted(facts), *(expectation.note(table, users) for expectation in self.expectations)]
        if notes and self.changed:
            notes.append(f"expected is what the unchanged recipe gives; changed here: {', '.join(self.changed)}")
        return replace(table, notes=(*table.notes, *notes))

    def counted(self, facts: Mapping[str, Any]) -> list[str]:
        """Whether the data is what was published, one sentence for each publication. facts: of the data step."""
        return [counts.in_words(facts) for counts in self.counts]


def read_expected(recipe: Path, changed: Sequence[str] = ()) -> Expected:
    """What `expected.toml` next to the recipe expects of it; nothing if there is no such file.

    Raises UserError naming the file and the place of a mistake in it.
    """
    file = recipe.parent / "expected.toml"
    if not file.is_file():
        return Expected(())
    try:
        parsed = _File.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file} cannot be read as TOML: {error}") from None
    except ValidationError as error:
        tables: dict[str, type[BaseModel]] = {"expected": Expectation, "counts": Counts}
        table = tables.get(str(error.errors()[0]["loc"][0]), _File)
        raise UserError(f"{file}, {settings_error(error, table.model_fields)}") from None
    return Expected(
        tuple(expectation for expectation in parsed.expected if recipe.stem in expectation.recipes),
        tuple(changed),
        tuple(counts for counts in parsed.counts if recipe.stem in counts.recipes),
    )


def changes(sets: Sequence[str], drops: Sequence[str]) -> list[str]:
    """Edits after which expected numbers need not hold: all but the places of data, which is checked."""
    return [*(text for text in sets if not text.startswith("prepare.source.")), *(f"--drop {path}" for path in drops)]
