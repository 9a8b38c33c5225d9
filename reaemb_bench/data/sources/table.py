"""Your own data: one file of interactions, one of items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import polars
from pydantic import BeforeValidator

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests, real_path
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import SCHEMA, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.tables import Format, TableFile, keys, numbers, read_table
from reaemb_bench.data.text import as_text, attribute_text
from reaemb_bench.data.times import Unit, whole_times

OptionalColumn = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
"""A column name, or an empty string for none: TOML has no word for nothing."""


class Table(Component):
    """Interactions and items from CSV, TSV, Parquet or JSON lines; column names are settings.

    Rows that repeat user, item and time are dropped, rows without a user or an item too; both are counted.
    """

    interactions: Path
    """File with one row an interaction."""
    items: Path
    """File with one row an item."""
    name: str = ""
    """Name of the data set in tables; empty takes that of the folder of the interactions."""
    user: str = "user_id"
    """Column of the user's key."""
    item: str = "item_id"
    """Column of the item's key among the interactions."""
    timestamp: OptionalColumn = "timestamp"
    """Column of the time or of the position in the user's sequence; empty takes the order of the file. Numbers below
    10^8 are positions, to which no year and no split by time applies."""
    time_format: str = ""
    """How dates are written, as for `strptime`, such as "%d/%m/%Y %H:%M"; empty reads numbers and dates that begin
    with the year."""
    rating: OptionalColumn = ""
    """Column of the rating; empty if there is none."""
    item_key: str = "item_id"
    """Column of the item's key among the items."""
    title: OptionalColumn = "title"
    """Column of the item's title; empty if there is none."""
    attributes: tuple[str, ...] = ()
    """Further columns of the items that prompts may show, in order. Leave out what only the future knew, such as
    review counts. The title comes first unless its column is listed here."""
    instruction: str = "The item has the following attributes:"
    """Line before an item's attributes."""
    interactions_format: Format = "auto"
    """Format of the interactions; `auto` goes by the suffix."""
    items_format: Format = "auto"
    """Format of the items; `auto` goes by the suffix."""
    separator: str = ""
    """Character between the fields of CSV and TSV; empty takes the comma, or the tab in TSV."""
    quote: str = '"'
    """Character around fields of CSV and TSV that contain separators; empty if quotes are part of the text."""

    def identity(self) -> dict[str, Any]:
        """Settings and contents without paths: the same files in another folder are the same data."""
        suffixes = {"interactions": self.interactions.suffix, "items": self.items.suffix}
        return {**super().identity(), **suffixes, "name": self._name}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files, or the first that is missing."""
        return file_digests({"interactions": self.interactions, "items": self.items})

    def read(self, machine: Machine) -> Interactions:
        """Returns all interactions and item attributes. Raises UserError naming file, column and cure."""
        rows = read_table(self.interactions, self.interactions_format, self.separator, self.quote, "interactions")
        descriptions = read_table(self.items, self.items_format, self.separator, self.quote, "items")
        frame, unit = self._frame(rows)
        items, repeated = self._items(descriptions)
        if not any(key in items for key in frame["item"].unique()):
            example, other = frame["item"][0], next(iter(items), "nothing")
            raise UserError(
                f"no item of {self.interactions} (column '{self.item}', such as '{example}') occurs in {self.items} "
                f"(column '{self.item_key}', such as '{other}'); set source.item or source.item_key"
            )
        removed = {
            "rows without user or item": Removed(interactions=len(rows.content) - frame.height),
            "repeated items": Removed(items=repeated),
        }
        return without_duplicates(Interactions(self._name, frame, items, self.instruction, removed, unit=unit))

    @property
    def _name(self) -> str:
        return self.name or Path(real_path(self.interactions)).parent.name

    def _frame(self, rows: TableFile) -> tuple[polars.DataFrame, Unit]:
        """Interactions with both keys, and the unit of their times."""
        height = len(rows.content)
        unit: Unit = "position"
        times = polars.int_range(height, dtype=polars.Int64, eager=True)
        if self.timestamp:
            times, unit = whole_times(rows.column(self.timestamp, "source.timestamp"), rows.file, self.time_format)
        ratings = polars.repeat(None, height, dtype=polars.Float64, eager=True)
        if self.rating:
            ratings = numbers(rows.column(self.rating, "source.rating"), rows.file)
        user, item = (keys(rows.column(getattr(self, role), f"source.{role}")) for role in ("user", "item"))
        frame = polars.DataFrame(dict(zip(SCHEMA, (user, item, times, ratings), strict=True)))
        frame = frame.drop_nulls(["user", "item"])
        if frame.is_empty():
            raise UserError(f"{rows.file}: every row lacks '{self.user}' or '{self.item}'; name other columns")
        return frame, unit

    def _items(self, descriptions: TableFile) -> tuple[dict[str, Attributes], int]:
        """Item key -> attributes, and how many rows repeat a key."""
        descriptions.require(self.item_key, "source.item_key")
        labels = attribute_labels(self.title, self.attributes)
        for label, column in labels.items():
            descriptions.require(column, "source.title" if label == "title" else "source.attributes")
        items: dict[str, Attributes] = {}
        rows = descriptions.rows()
        for row in rows:
            attributes = {label: attribute_text(label, row.get(column)) for label, column in labels.items()}
            items.setdefault(as_text(row.get(self.item_key)), attributes)
        repeated = len(rows) - len(items)
        items.pop("", None)
        return items, repeated


def attribute_labels(title: str, attributes: tuple[str, ...]) -> dict[str, str]:
    """Returns the columns of item attributes by the name that prompts use. Raises UserError if two are called title."""
    if title and title != "title" and "title" in attributes:
        raise UserError(f"source.attributes has two titles, '{title}' and 'title'; set source.title to 'title'")
    columns = attributes if title in attributes else (title, *attributes)
    return {"title" if column == title else column: column for column in columns if column}
