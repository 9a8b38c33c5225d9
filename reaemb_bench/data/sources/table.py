"""A person's own data: one file of interactions, one of items."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests, real_path
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.tables import Format, Sheet, as_text, keys, numbers, order_in_time, read_sheet

if TYPE_CHECKING:
    import polars


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
    rating: OptionalColumn = ""
    """Column of the rating; empty where there is none."""
    item_key: str = "item_id"
    """Column of the item's key among the items."""
    title: OptionalColumn = "title"
    """Column of the item's title; empty where there is none."""
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
    """Character around fields of CSV and TSV that contain separators; empty where quotes are but part of the text."""

    def identity(self) -> dict[str, Any]:
        """Settings and contents, not places: the same files in another folder are the same data."""
        made = super().identity()
        suffixes = {"interactions": self.interactions.suffix, "items": self.items.suffix}
        return {**made, **suffixes, "name": self._name}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files, or the first that is missing: a plan can be drawn up without the data."""
        return file_digests({"interactions": self.interactions, "items": self.items})

    def read(self, machine: Machine) -> Interactions:
        """All interactions and item attributes. Raises UserError naming file, column and cure."""
        rows = read_sheet(self.interactions, self.interactions_format, self.separator, self.quote, "interactions")
        things = read_sheet(self.items, self.items_format, self.separator, self.quote, "items")
        frame = self._frame(rows)
        items, repeated = self._items(things)
        known = set(items)
        if not any(key in known for key in frame["item"].unique()):
            example, other = frame["item"][0], next(iter(items), "nothing")
            raise UserError(
                f"no item of {self.interactions} (column '{self.item}', such as '{example}') occurs in {self.items} "
                f"(column '{self.item_key}', such as '{other}'); set source.item or source.item_key"
            )
        data = Interactions(
            name=self._name,
            frame=frame,
            items=items,
            instruction=self.instruction,
            removed={
                "rows without user or item": Removed(interactions=len(rows.content) - frame.height),
                "repeated items": Removed(items=repeated),
            },
        )
        return without_duplicates(data)

    @property
    def _name(self) -> str:
        return self.name or Path(real_path(self.interactions)).parent.name

    def _frame(self, sheet: Sheet) -> polars.DataFrame:
        import polars

        height = len(sheet.content)
        times = polars.int_range(height, dtype=polars.Int64, eager=True)
        if self.timestamp:
            times = order_in_time(sheet.column(self.timestamp, "source.timestamp"), sheet.file)
        ratings = polars.repeat(None, height, dtype=polars.Float64, eager=True)
        if self.rating:
            ratings = numbers(sheet.column(self.rating, "source.rating"), sheet.file)
        frame = polars.DataFrame(
            {
                "user": keys(sheet.column(self.user, "source.user")),
                "item": keys(sheet.column(self.item, "source.item")),
                "timestamp": times,
                "rating": ratings,
            }
        ).drop_nulls(["user", "item"])
        if frame.is_empty():
            raise UserError(f"{sheet.file}: every row lacks '{self.user}' or '{self.item}'; name other columns")
        return frame

    def _items(self, sheet: Sheet) -> tuple[dict[str, Attributes], int]:
        sheet.require(self.item_key, "source.item_key")
        labels = self._labels()
        for label, column in labels.items():
            sheet.require(column, "source.title" if label == "title" else "source.attributes")
        items: dict[str, Attributes] = {}
        rows = sheet.rows()
        for row in rows:
            attributes: Attributes = {label: _value(row.get(column)) for label, column in labels.items()}
            items.setdefault(as_text(row.get(self.item_key)), attributes)
        repeated = len(rows) - len(items)
        items.pop("", None)
        return items, repeated

    def _labels(self) -> dict[str, str]:
        """Attribute name -> column."""
        if self.title and self.title != "title" and "title" in self.attributes:
            raise UserError(
                f"source.attributes has two titles, '{self.title}' and 'title'; set source.title to 'title'"
            )
        columns = self.attributes if self.title in self.attributes else (self.title, *self.attributes)
        return {"title" if column == self.title else column: column for column in columns if column}


def _value(value: object) -> str | list[str]:
    if isinstance(value, list | tuple):
        return [text for each in value if (text := _flat(each))]
    if isinstance(value, dict):
        return [f"{key}: {_flat(each)}" for key, each in value.items() if each is not None]
    return as_text(value)


def _flat(value: object) -> str:
    made = _value(value)
    return made if isinstance(made, str) else ", ".join(made)
