"""Tables from disk: lines whose fields stand between separators, and CSV, TSV, Parquet or JSON lines of any columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import is_file
from reaemb_bench.core.registry import nearest
from reaemb_bench.data.json_lines import parse_json
from reaemb_bench.data.lines import BadLines, Field, blocks, lines, prefetched
from reaemb_bench.data.text import as_text
from reaemb_bench.data.times import refuse_first

# Helper columns; no column of a file can have a line break in its name.
_LINE, _NUMBER, _MORE, _FAULT = "\nline", "\nnumber", "\nmore", "\nfault"


def read_delimited(
    file: Path, columns: Sequence[str], fields: Mapping[str, Field], separator: str, header: bool, bad: BadLines
) -> polars.DataFrame:
    """Returns the wanted columns of all sound lines in the file's order; blank lines are skipped, quotes are text.

    columns: what stands in each line, in order. fields: those wanted, of kind text (String, without surrounding space),
    whole (Int64), number (Float64) or decimal (String); an empty cell is null. header: the first line is not a row.
    bad: counts lines that are not UTF-8, have more or fewer fields than columns, lack a required field or have
    something else where a number or a time should be. Raises UserError if there are more of them than tolerated.
    """
    cells = polars.col(_LINE).str.split_exact(separator, len(columns)).struct.rename_fields([*columns, _MORE])
    read = {name: _cell(polars.col(name), field) for name, field in fields.items()}
    fault = _fault(columns, fields, read)
    types = {"text": polars.String, "whole": polars.Int64, "number": polars.Float64, "decimal": polars.String}
    frames = [polars.DataFrame(schema={name: types[field.kind] for name, field in fields.items()})]

    def judged(block: bytes) -> tuple[int, polars.DataFrame]:
        """How many lines a block has, and those that are not blank with their numbers, cells and faults."""
        text = polars.DataFrame({_LINE: [block[:-1].decode("utf-8", "replace")]})
        rows = text.select(polars.col(_LINE).str.split("\n").explode()).with_row_index(_NUMBER, 1)
        filled = rows.lazy().filter(polars.col(_LINE).str.strip_chars() != "")
        return rows.height, filled.with_columns(cells.alias("")).unnest("").select(_NUMBER, fault, **read).collect()

    start = 0
    for height, rows in prefetched(map(judged, blocks(file))):
        if header and start == 0:
            rows = rows.filter(polars.col(_NUMBER) > 1)
        for number, reason in rows.filter(polars.col(_FAULT).is_not_null()).select(_NUMBER, _FAULT).rows():
            bad.add(start + number, reason)
        frames.append(rows.filter(polars.col(_FAULT).is_null()).drop(_NUMBER, _FAULT))
        start += height
    return polars.concat(frames)


def _cell(cell: polars.Expr, field: Field) -> polars.Expr:
    """The cell as its kind; null if it is empty or of another kind."""
    stripped = cell.str.strip_chars()
    filled = polars.when(stripped != "").then(stripped)
    if field.kind == "text":
        return filled
    number = filled.cast(polars.Int64 if field.kind == "whole" else polars.Float64, strict=False)
    sound = number.is_between(*field.bounds) if field.bounds else number.is_finite()
    return polars.when(sound).then(filled if field.kind == "decimal" else number)


def _fault(columns: Sequence[str], fields: Mapping[str, Field], read: Mapping[str, polars.Expr]) -> polars.Expr:
    """What is wrong with a line; null if nothing is."""
    fault = (
        polars.when(polars.col(_LINE).str.contains("\ufffd", literal=True))
        .then(polars.lit("not in UTF-8"))
        .when(polars.col(columns[-1]).is_null())
        .then(polars.lit(f"fewer fields than {len(columns)}"))
        .when(polars.col(_MORE).is_not_null())
        .then(polars.lit(f"more fields than {len(columns)}"))
    )
    for name, field in fields.items():
        empty = polars.col(name).str.strip_chars() == ""
        if field.required:
            fault = fault.when(empty).then(polars.lit(f"no '{name}'"))
        if field.kind != "text":
            fault = fault.when(~empty & read[name].is_null()).then(polars.lit(f"'{name}' is not a {field.called}"))
    return fault.alias(_FAULT)


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
