"""Text files of one row a line whose fields stand between separators: read as they stream, broken lines counted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.registry import nearest
from reaemb_bench.data.interactions import LEAST_TIME, least_alike
from reaemb_bench.data.json_lines import Field, Malformed

if TYPE_CHECKING:
    import polars


_TYPES = {"text": "String", "whole": "Int64", "number": "Float64"}
# A line is read as one column, so the separator is a control character that no text holds.
_NEVER = "\x1f"
_LINE, _NUMBER, _MORE, _FAULT = "\nline", "\nnumber", "\nmore", "\nfault"


def read_delimited(
    file: Path, columns: Sequence[str], fields: Mapping[str, Field], separator: str, header: bool, malformed: Malformed
) -> polars.DataFrame:
    """The wanted columns of all sound lines, in the file's order; blank lines are none, quotes are text.

    columns: what stands in each line, in order. fields: the wanted ones; kinds are text (String, without surrounding
    space), whole (Int64) and number (Float64, finite); an empty cell is null. header: the first line is no row.
    malformed: where lines are counted that are not UTF-8, have more or fewer fields than columns, lack a required
    field or have no number where one must be. Raises UserError where there are more of them than tolerated.
    """
    import polars

    cells = polars.col(_LINE).str.split_exact(separator, len(columns)).struct.rename_fields([*columns, _MORE])
    rows = _lines(file).filter(polars.col(_NUMBER) > int(header)).with_columns(cells.alias("")).unnest("")
    read = {name: _value(polars.col(name), field) for name, field in fields.items()}
    judged = rows.with_columns(_fault(columns, fields, read).alias(_FAULT))
    sound = judged.filter(polars.col(_FAULT).is_null()).select(**read)
    broken = judged.filter(polars.col(_FAULT).is_not_null()).select(_NUMBER, _FAULT)
    first = broken.sort(_NUMBER).head(malformed.limit + 1)
    try:
        frame, faults = polars.collect_all([sound, first], engine="streaming")
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{malformed.file} cannot be read as lines of text ({reason}); fetch it again") from None
    for number, fault in faults.rows():
        malformed.add(number, fault)
    return frame


def _lines(file: Path) -> polars.LazyFrame:
    """Lines that are not blank, with their numbers from 1."""
    import polars

    lines = polars.scan_csv(
        file,
        has_header=False,
        separator=_NEVER,
        quote_char=None,
        encoding="utf8-lossy",
        schema={_LINE: polars.String},
    ).with_row_index(_NUMBER, offset=1)
    return lines.filter(polars.col(_LINE).str.strip_chars() != "")


def _value(cell: polars.Expr, field: Field) -> polars.Expr:
    """The cell as its kind; null where it is empty or no such thing."""
    import polars

    stripped = cell.str.strip_chars()
    filled = polars.when(stripped != "").then(stripped)
    made = filled.cast(getattr(polars, _TYPES[field.kind]), strict=False)
    return polars.when(made.is_finite()).then(made) if field.kind == "number" else made


def _fault(columns: Sequence[str], fields: Mapping[str, Field], read: Mapping[str, polars.Expr]) -> polars.Expr:
    """What is wrong with a line, null where nothing is."""
    import polars

    wanted = f"fields than {len(columns)}"
    found = (
        polars.when(polars.col(_LINE).str.contains("\ufffd", literal=True))
        .then(polars.lit("not in UTF-8"))
        .when(polars.col(columns[-1]).is_null())
        .then(polars.lit(f"fewer {wanted}"))
        .when(polars.col(_MORE).is_not_null())
        .then(polars.lit(f"more {wanted}"))
    )
    for name, field in fields.items():
        empty = polars.col(name).str.strip_chars() == ""
        if field.required:
            found = found.when(empty).then(polars.lit(f"no '{name}'"))
        if field.kind != "text":
            called = "whole number" if field.kind == "whole" else "number"
            found = found.when(~empty & read[name].is_null()).then(polars.lit(f"'{name}' is no {called}"))
    return found


# Tables from disk, whatever their format: columns as polars series, rows as dictionaries, mistakes as one line.


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
