"""Tables from disk, whatever their format: columns as polars series, rows as dictionaries, mistakes as one line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reaemb_bench.data.interactions import LEAST_TIME, least_alike
from reaemb_bench.errors import UserError
from reaemb_bench.registry import nearest

if TYPE_CHECKING:
    import polars

Format = Literal["auto", "csv", "tsv", "parquet", "jsonl"]

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


@dataclass(frozen=True)
class Sheet:
    """One table that was read: its file, the column names in order, and the data in either of two forms."""

    file: Path
    columns: tuple[str, ...]
    content: polars.DataFrame | list[dict[str, Any]]

    def require(self, column: str, setting: str) -> None:
        """Raise UserError where there is no such column, naming the setting that asks for it."""
        if column not in self.columns:
            hint = nearest(column, self.columns)
            raise UserError(
                f"{self.file} has no column '{column}' (setting {setting}).{hint} Name one of these. "
                f"Columns: {', '.join(self.columns)}"
            )

    def column(self, name: str, setting: str) -> polars.Series:
        """One column; text where the format knows no types or mixes them. Raises UserError where it is absent."""
        import polars

        self.require(name, setting)
        if isinstance(self.content, polars.DataFrame):
            series = self.content[name]
            nested = series.dtype.is_nested()
        else:
            values = [row.get(name) for row in self.content]
            nested = any(isinstance(value, list | dict) for value in values)
            series = polars.Series(name, [] if nested else [as_text(value) or None for value in values], polars.String)
        if nested:
            raise UserError(f"{self.file}, column '{name}' (setting {setting}) holds lists; name one of single values")
        try:
            return series if series.dtype.is_numeric() or series.dtype.is_temporal() else series.cast(polars.String)
        except polars.exceptions.PolarsError:
            raise UserError(
                f"{self.file}, column '{name}' (setting {setting}) is of type {series.dtype}; name one of texts"
            ) from None

    def rows(self) -> list[dict[str, Any]]:
        """All rows; nested values stay nested."""
        return self.content if isinstance(self.content, list) else self.content.to_dicts()


def as_text(value: object) -> str:
    """A scalar as text, empty for NaN; whole floats lose their ".0", which only another program gave them."""
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return "" if value is None else str(value).strip()


def read_sheet(file: Path, form: Format, separator: str, quote: str, setting: str) -> Sheet:
    """Read a table. Raises UserError where it is absent, empty, or not what its format says.

    separator, quote: of CSV and TSV; an empty separator goes by the format, an empty quote means none. setting: the
    name of the setting that holds the file, for error messages.
    """
    if not file.is_file():
        raise UserError(
            f"there is no file {file} (setting {setting}); paths are relative to where you start the program"
        )
    known = _SUFFIXES.get(file.suffix.lower()) if form == "auto" else form
    if known is None:
        raise UserError(
            f"{file}: the suffix '{file.suffix}' does not tell the format; "
            f'set {setting}_format to "csv", "tsv", "parquet" or "jsonl"'
        )
    sheet = _read_lines(file) if known == "jsonl" else _read_frame(file, known, separator, quote)
    if not len(sheet.content):
        raise UserError(f"{file} has no rows (setting {setting}); give a file with data")
    return sheet


def _read_frame(file: Path, form: Format, separator: str, quote: str) -> Sheet:
    import polars

    try:
        if form == "parquet":
            frame = polars.read_parquet(file)
        else:
            # Types are not guessed, for a guess turns the key 007 into 7.
            mark = separator or ("\t" if form == "tsv" else ",")
            frame = polars.read_csv(file, separator=mark, infer_schema=False, quote_char=quote or None)
    except (polars.exceptions.PolarsError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["it is empty"])[0]
        raise UserError(f"{file} is no readable {form} ({reason}); check its format, separator and quote") from None
    return Sheet(file, tuple(frame.columns), frame)


def _read_lines(file: Path) -> Sheet:
    rows: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    try:
        with file.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UserError(f'{file}, line {number}: each line must be a JSON object, such as {{"item_id": 1}}')
                rows.append(row)
                columns.update(dict.fromkeys(row))
    except RecursionError:
        raise UserError(f"{file}, line {number}: JSON inside JSON without end; correct that line") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not in UTF-8; save it in that encoding") from None
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise UserError(f"{file}, line {number}: no valid JSON ({reason}); correct that line") from None
    return Sheet(file, tuple(columns), rows)


def keys(series: polars.Series) -> polars.Series:
    """Keys as text without surrounding space; an empty one becomes null."""
    import polars

    if series.dtype.is_float():
        return polars.Series(series.name, [as_text(value) or None for value in series], polars.String)
    text = series.cast(polars.String).str.strip_chars()
    return text.set(text == "", None)


def order_in_time(series: polars.Series, file: Path) -> polars.Series:
    """Times as whole numbers that keep their order (Int64): seconds or positions as they are, dates in milliseconds.

    Raises UserError at the first value that is no time.
    """
    import polars

    if series.dtype.is_temporal():
        try:
            made = series.cast(polars.Datetime("ms"), strict=False).dt.epoch("ms")
        except polars.exceptions.PolarsError:
            raise UserError(
                f"{file}, column '{series.name}' is of type {series.dtype}; give dates or numbers"
            ) from None
    else:
        made = series.cast(polars.Int64, strict=False) if not series.dtype.is_float() else series.cast(polars.Float64)
        if made.null_count():
            made = series.cast(polars.Float64, strict=False)
        if made.null_count() and series.dtype == polars.String:
            made = _dates(series)
        else:
            _refuse_mixed_units(series, made, file)
        if made.dtype == polars.Float64 and made.is_finite().all():
            whole = bool((made == made.floor()).all())
            made = (made if whole else (made * 1000).round()).cast(polars.Int64, strict=False)
    bad = made.is_null() if made.dtype == polars.Int64 else ~made.is_finite().fill_null(False)
    _refuse_first(series, bad, file, "a time; give whole seconds, positions, or dates like 2024-05-31")
    return made


def _refuse_mixed_units(series: polars.Series, times: polars.Series, file: Path) -> None:
    """Raise UserError where some times are seconds and others milliseconds, which would all come last."""
    largest = times.max()
    if isinstance(largest, int | float) and (least := least_alike(largest)) is not None:
        others = (times >= LEAST_TIME) & (times < least)
        wanted = f"in the unit of {series[times.arg_max() or 0]}; give all times in one unit"
        _refuse_first(series, others, file, wanted)


def numbers(series: polars.Series, file: Path) -> polars.Series:
    """Numbers as Float64, null where the cell is empty or NaN. Raises UserError at the first value that is none."""
    import polars

    read = series.cast(polars.Float64, strict=False)
    made = read.fill_nan(None)
    _refuse_first(
        series,
        (read.is_null() & series.is_not_null()) | made.is_infinite(),
        file,
        "a number; correct it or choose another column",
    )
    return made


def _dates(series: polars.Series) -> polars.Series:
    import polars

    for parse in (series.str.to_datetime, series.str.to_date):
        try:
            made = parse(strict=False)
        except polars.exceptions.PolarsError:
            continue
        if not made.null_count():
            return made.cast(polars.Datetime("ms")).dt.epoch("ms")
    return series.cast(polars.Int64, strict=False)


def _refuse_first(series: polars.Series, bad: polars.Series, file: Path, wanted: str) -> None:
    places: Sequence[int] = bad.arg_true().to_list()
    if places:
        value = series[places[0]]
        shown = "an empty cell" if value is None else f"'{value}'"
        more = f" ({len(places)} such rows)" if len(places) > 1 else ""
        raise UserError(f"{file}, column '{series.name}', data row {places[0] + 1}: {shown} is not {wanted}{more}")
