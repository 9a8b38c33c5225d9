"""Your own data: one file of interactions, one of items, as CSV, TSV, Parquet or JSON lines of any columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import polars
from pydantic import BeforeValidator

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import is_file, real_path
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import nearest
from reaemb_bench.data.columns import guess
from reaemb_bench.data.interactions import SCHEMA, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.lines import first_unreadable, lines, parse_json
from reaemb_bench.data.sources import FileSource
from reaemb_bench.data.text import as_text, attribute_text
from reaemb_bench.data.times import Unit, refuse_first, whole_times

Format = Literal["auto", "csv", "tsv", "parquet", "jsonl"]
SUFFIXES: dict[str, Format] = {".csv": "csv", ".tsv": "tsv"}
SUFFIXES |= {".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}

OptionalColumn = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
"""A column name, or an empty string for none: TOML has no word for nothing."""


class Table(FileSource):
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
        return {**super().identity(), "interactions": self.interactions.suffix, "items": self.items.suffix}

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return self.name or Path(real_path(self.interactions)).parent.name

    def read(self, machine: Machine) -> Interactions:
        """Returns all interactions and item attributes. Raises UserError naming file, column and cure."""
        rows = read_table(self.interactions, self.interactions_format, self.separator, self.quote, "interactions")
        descriptions = read_table(self.items, self.items_format, self.separator, self.quote, "items")
        wanted = {role: getattr(self, role) for role in SCHEMA if role in ("user", "item") or getattr(self, role)}
        columns = {role: rows.column(name, f"source.{role}") for role, name in wanted.items()}
        frame, unit = interactions_frame(rows.file, columns, self.time_format)
        frame = frame.drop_nulls(["user", "item"])
        if frame.is_empty():
            raise UserError(f"{rows.file}: every row lacks '{self.user}' or '{self.item}'; name other columns")

        require_column(self.items, descriptions.columns, self.item_key, "source.item_key")
        labels = attribute_labels(self.items, descriptions.columns, self.title, self.attributes)
        items: dict[str, Attributes] = {}
        for row in descriptions.rows():
            attributes = {label: attribute_text(label, row.get(column)) for label, column in labels.items()}
            items.setdefault(as_text(row.get(self.item_key)), attributes)
        removed = {
            "rows without user or item": Removed(interactions=len(rows.content) - frame.height),
            "repeated items": Removed(items=len(descriptions.content) - len(items)),
        }
        items.pop("", None)
        if not any(key in items for key in frame["item"].unique()):
            example, other = frame["item"][0], next(iter(items), "nothing")
            raise UserError(
                f"no item of {self.interactions} (column '{self.item}', such as '{example}') occurs in {self.items} "
                f"(column '{self.item_key}', such as '{other}'); set source.item or source.item_key"
            )
        return without_duplicates(Interactions(self.data_name, frame, items, self.instruction, removed, unit=unit))


def interactions_frame(
    file: Path, columns: Mapping[str, polars.Series], time_format: str = ""
) -> tuple[polars.DataFrame, Unit]:
    """Returns rows of columns by role, and the unit of their times; without times the order of the file counts.

    Raises UserError at the first value that is not a time or not a rating.
    """
    unit: Unit = "position"
    times, ratings = polars.int_range(len(columns["user"]), dtype=polars.Int64, eager=True), None
    if "timestamp" in columns:
        times, unit = whole_times(columns["timestamp"], file, time_format)
    if "rating" in columns:
        written = columns["rating"]
        ratings = written.cast(polars.Float64, strict=False)
        wrong = (ratings.is_null() & written.is_not_null()) | ratings.is_infinite()
        refuse_first(written, wrong, file, "a number; correct it or choose another column")
        ratings = ratings.fill_nan(None)
    user, item = keys(columns["user"]), keys(columns["item"])
    rows = {"user": user, "item": item, "timestamp": times, "rating": ratings}
    return polars.DataFrame(rows, schema_overrides=SCHEMA), unit


def attribute_labels(file: Path, columns: Collection[str], title: str, attributes: tuple[str, ...]) -> dict[str, str]:
    """Returns the columns of item attributes by the name that prompts use.

    Raises UserError if the file lacks one or if two are called title.
    """
    if title and title != "title" and "title" in attributes:
        raise UserError(f"source.attributes has two titles, '{title}' and 'title'; set source.title to 'title'")
    named = attributes if title in attributes else (title, *attributes)
    labels = {"title" if column == title else column: column for column in named if column}
    for label, column in labels.items():
        require_column(file, columns, column, "source.title" if label == "title" else "source.attributes")
    return labels


def require_column(file: Path, columns: Collection[str], column: str, setting: str) -> None:
    """Raises UserError if there is no such column, naming the setting that asks for it."""
    if column not in columns:
        raise UserError(
            f"{file} has no column '{column}' (setting {setting}).{nearest(column, columns)} Name one of these. "
            f"Columns: {', '.join(columns)}"
        )


@dataclass(frozen=True)
class TableFile:
    """A table that was read: its file, the names of its columns in order, and its rows in either of two forms."""

    file: Path
    columns: tuple[str, ...]
    content: polars.DataFrame | list[dict[str, Any]]

    def column(self, name: str, setting: str) -> polars.Series:
        """Returns one column: numbers, dates or text. Raises UserError if it is absent or holds lists."""
        require_column(self.file, self.columns, name, setting)
        where = f"{self.file}, column '{name}' (setting {setting})"
        if isinstance(self.content, list):
            values = [row.get(name) for row in self.content]
            nested = any(isinstance(value, list | dict) for value in values)
            series = polars.Series(name, [as_text(value) or None for value in values], polars.String)
        else:
            series = self.content[name]
            nested = series.dtype.is_nested()
        if nested:
            raise UserError(f"{where} holds lists; name one of single values")
        kept = series.dtype.is_numeric() or series.dtype.is_temporal() or series.dtype == polars.Categorical
        try:
            return series if kept else series.cast(polars.String)
        except polars.exceptions.PolarsError:
            raise UserError(f"{where} is of type {series.dtype}; name one of texts") from None

    def rows(self) -> list[dict[str, Any]]:
        """Returns all rows; nested values stay nested."""
        return self.content if isinstance(self.content, list) else self.content.to_dicts()


def read_table(file: Path, form: Format, separator: str, quote: str, setting: str) -> TableFile:
    """Reads a table. Raises UserError if it is absent, empty or not what its format says.

    separator, quote: of CSV and TSV; an empty separator goes by the format, an empty quote means none. setting: the
    name of the setting that holds the file, for error messages.
    """
    if not is_file(file):
        raise UserError(
            f"there is no file {file} (setting {setting}); paths are relative to the recipe, else to the current folder"
        )
    known = SUFFIXES.get(file.suffix.lower()) if form == "auto" else form
    if known is None:
        raise UserError(
            f"{file}: the suffix '{file.suffix}' does not tell the format; "
            f'set {setting}_format to "csv", "tsv", "parquet" or "jsonl"'
        )
    if known == "jsonl":
        rows = []
        for number, line in lines(file):
            try:
                rows.append(parse_json(line, constants=True))
            except ValueError as error:
                reason = "not in UTF-8" if isinstance(error, UnicodeError) else error
                wanted = 'each line must be a JSON object in UTF-8, such as {"item_id": 1}'
                raise UserError(f"{file}, line {number}: {reason}; {wanted}; correct that line") from None
        table = TableFile(file, tuple(dict.fromkeys(name for row in rows for name in row)), rows)
    else:
        mark = separator or ("\t" if known == "tsv" else ",")
        try:
            # An open file: polars would take brackets and stars in a name for a pattern.
            with file.open("rb") as stream:
                if known == "parquet":
                    frame = polars.read_parquet(stream)
                else:
                    # Types are not guessed, because a guess turns the key 007 into 7.
                    options: dict[str, Any] = {"separator": mark, "infer_schema": False, "quote_char": quote or None}
                    names = polars.read_csv(stream, n_rows=0, **options).columns
                    stream.seek(0)
                    # Keys of many rows are kept once.
                    keys_of = dict.fromkeys(filter(None, (guess(names, role) for role in ("user", "item"))))
                    frame = polars.read_csv(
                        stream, schema_overrides=dict.fromkeys(keys_of, polars.Categorical), **options
                    )
        except (polars.exceptions.PolarsError, OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or ["it is empty"])[0]
            if known != "parquet":
                reason = first_unreadable(file, mark, quote) or reason
            raise UserError(
                f"{file} is not a readable {known} ({reason}); check its format, separator and quote"
            ) from None
        table = TableFile(file, tuple(frame.columns), frame)
    if not len(table.content):
        raise UserError(f"{file} has no rows (setting {setting}); give a file with data")
    return table


def keys(series: polars.Series) -> polars.Series:
    """Returns keys as text without surrounding space; an empty one becomes null."""
    if series.dtype.is_float():
        return polars.Series(series.name, [as_text(value) or None for value in series], polars.String)
    text = series.cast(polars.String).str.strip_chars()
    return text.set(text == "", None)
