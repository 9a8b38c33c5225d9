"""Tables from disk: lines whose fields stand between separators, and CSV, TSV, Parquet or JSON lines of any columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import is_file
from reaemb_bench.core.registry import nearest
from reaemb_bench.data.lines import lines, parse_json
from reaemb_bench.data.text import as_text
from reaemb_bench.data.times import refuse_first

Format = Literal["auto", "csv", "tsv", "parquet", "jsonl"]

SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True)
class TableFile:
    """A table that was read: its file, the names of its columns in order, and its rows in either of two forms."""

    file: Path
    columns: tuple[str, ...]
    content: polars.DataFrame | list[dict[str, Any]]

    def require(self, column: str, setting: str) -> None:
        """Raises UserError if there is no such column, naming the setting that asks for it."""
        if column not in self.columns:
            hint = nearest(column, self.columns)
            raise UserError(
                f"{self.file} has no column '{column}' (setting {setting}).{hint} Name one of these. "
                f"Columns: {', '.join(self.columns)}"
            )

    def column(self, name: str, setting: str) -> polars.Series:
        """Returns one column: numbers, dates or text. Raises UserError if it is absent or holds lists."""
        self.require(name, setting)
        where = f"{self.file}, column '{name}' (setting {setting})"
        if isinstance(self.content, list):
            values = [row.get(name) for row in self.content]
            if any(isinstance(value, list | dict) for value in values):
                raise UserError(f"{where} holds lists; name one of single values")
            return polars.Series(name, [as_text(value) or None for value in values], polars.String)
        series = self.content[name]
        if series.dtype.is_nested():
            raise UserError(f"{where} holds lists; name one of single values")
        try:
            return series if series.dtype.is_numeric() or series.dtype.is_temporal() else series.cast(polars.String)
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
    table = _read_json_table(file) if known == "jsonl" else _read_frame(file, known, separator, quote)
    if not len(table.content):
        raise UserError(f"{file} has no rows (setting {setting}); give a file with data")
    return table


def _read_frame(file: Path, form: Format, separator: str, quote: str) -> TableFile:
    try:
        # An open file: polars would take brackets and stars in a name for a pattern.
        with file.open("rb") as stream:
            if form == "parquet":
                frame = polars.read_parquet(stream)
            else:
                mark = separator or ("\t" if form == "tsv" else ",")
                # Types are not guessed, because a guess turns the key 007 into 7.
                frame = polars.read_csv(stream, separator=mark, infer_schema=False, quote_char=quote or None)
    except (polars.exceptions.PolarsError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["it is empty"])[0]
        raise UserError(f"{file} is not a readable {form} ({reason}); check its format, separator and quote") from None
    return TableFile(file, tuple(frame.columns), frame)


def _read_json_table(file: Path) -> TableFile:
    rows = []
    for number, line in lines(file):
        try:
            rows.append(parse_json(line, constants=True))
        except ValueError as error:
            reason = "not in UTF-8" if isinstance(error, UnicodeError) else error
            wanted = 'each line must be a JSON object in UTF-8, such as {"item_id": 1}'
            raise UserError(f"{file}, line {number}: {reason}; {wanted}; correct that line") from None
    return TableFile(file, tuple(dict.fromkeys(name for row in rows for name in row)), rows)


def keys(series: polars.Series) -> polars.Series:
    """Returns keys as text without surrounding space; an empty one becomes null."""
    if series.dtype.is_float():
        return polars.Series(series.name, [as_text(value) or None for value in series], polars.String)
    text = series.cast(polars.String).str.strip_chars()
    return text.set(text == "", None)


def numbers(series: polars.Series, file: Path) -> polars.Series:
    """Returns numbers as Float64, null for an empty cell or NaN. Raises UserError at the first value that is none."""
    read = series.cast(polars.Float64, strict=False)
    bad = (read.is_null() & series.is_not_null()) | read.is_infinite()
    refuse_first(series, bad, file, "a number; correct it or choose another column")
    return read.fill_nan(None)
