"""Files of one JSON object a line, read a block at a time, so that memory does not grow with the file.

Polars reads whole blocks. It accepts more than it should (an object where text is asked for becomes text), so the rows
that look doubtful are read again one by one, as are the blocks that it refuses; that decides what a line is worth.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars

from reaemb_bench.data.lines import BadLines, Field, blocks, prefetched

_FEW = 16
_ROW = "\nrow"
# What polars writes for lists, objects, truth values and halves of surrogate pairs if text is asked for.
_NOT_TEXT = r"^[\[{]|^(?:true|false)$|\x00"

Row = tuple[Any, ...]


def read_json_lines(
    file: Path, fields: Mapping[str, Field], bad: BadLines, literals: bool = False
) -> Iterator[polars.DataFrame]:
    """Yields the wanted fields of all sound lines in the file's order, a frame at a time; blank lines are skipped.

    Columns are named after `fields` and are String, List(String), Int64 or Float64; null if a line lacks the field.
    bad: counts lines that are not a JSON object in UTF-8, have a field of another kind or lack a required one.
    literals: lines may also be Python dictionaries of constants (single quotes); nothing in them is executed.
    Raises UserError if the file is absent, ends early or has more malformed lines than tolerated.
    """
    parse = parse_json_or_literal if literals else parse_json
    types = {"whole": polars.Int64(), "number": polars.Float64(), "texts": polars.List(polars.String)}
    types["parts"] = types["texts"]
    raw_schema = {name: types.get(field.kind, polars.String()) for name, field in fields.items()}
    schema = {**raw_schema, **{name: polars.Int64() for name, field in fields.items() if field.kind == "date"}}

    def parsed(block: bytes) -> tuple[bytes, polars.DataFrame | None]:
        """The block and what polars reads from it; None if it refuses it or if the block is not JSON."""
        if block.count(b"\n") <= _FEW or (literals and not _is_json(block[: block.find(b"\n")])):
            return block, None
        try:
            return block, polars.read_ndjson(block, schema=raw_schema)
        except polars.exceptions.PolarsError:
            return block, None

    def one_by_one(rows: Iterable[int], lines: list[bytes]) -> Iterator[Row]:
        """Row number and wanted values of each line that is sound; the others are counted."""
        for row in rows:
            with bad.line(start + row):
                content = parse(lines[row])
                yield row, *(_value(name, field, content.get(name)) for name, field in fields.items())

    start = 1
    for block, raw in prefetched(map(parsed, blocks(file))):
        height = block.count(b"\n")
        if raw is None or raw.height != height:
            frame = polars.DataFrame(schema={_ROW: polars.UInt32, **schema})
            doubtful = [row for row, line in enumerate(block.split(b"\n")) if line.strip()]
        else:
            frame = raw.with_columns(**_conversions(fields)).with_row_index(_ROW).cast({_ROW: polars.UInt32})
            doubtful = frame.select(polars.any_horizontal(*_doubts(fields, raw))).to_series().arg_true().to_list()
        if doubtful:
            again = polars.DataFrame(one_by_one(doubtful, block.split(b"\n")), schema=frame.schema, orient="row")
            frame = polars.concat([frame.filter(~polars.col(_ROW).is_in(doubtful)), again]).sort(_ROW)
        start += height
        if frame.height:
            yield frame.drop(_ROW)


def _conversions(fields: Mapping[str, Field]) -> dict[str, polars.Expr]:
    """Expressions that make of a column as polars reads it what its field asks for."""
    conversions = {}
    for name, field in fields.items():
        if field.kind in ("texts", "parts"):
            conversions[name] = polars.col(name).list.drop_nulls()
        elif field.kind == "date":
            moment = polars.col(name).str.to_datetime(field.form, time_unit="us", strict=False)
            conversions[name] = moment.dt.epoch("s")
    return conversions


def _doubts(fields: Mapping[str, Field], raw: polars.DataFrame) -> Iterator[polars.Expr]:
    """Conditions on converted columns under which a row must be read again. raw: before their conversion."""
    yield polars.lit(False)
    for name, field in fields.items():
        column = polars.col(name)
        if field.required:
            yield column.is_null()
        if field.bounds:
            yield ~column.is_between(*field.bounds).fill_null(True)
        if field.kind in ("text", "json"):
            yield column.str.contains(_NOT_TEXT).fill_null(False)
        elif field.kind in ("texts", "parts"):
            yield column.list.eval(polars.element().str.contains(_NOT_TEXT)).list.any().fill_null(False)
        elif field.kind == "date":
            yield column.is_null() & polars.lit(raw[name].is_not_null())


def parse_json(line: bytes, constants: bool = False) -> dict[str, Any]:
    """Returns the object of a line. Raises ValueError with the reason if there is none.

    constants: NaN and Infinity are numbers, as Python writes them; otherwise they are not JSON.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return _checked(json.loads(line.decode("utf-8"), parse_constant=None if constants else refuse), line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no valid JSON ({error.msg}, character {error.pos + 1})") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def parse_json_or_literal(line: bytes) -> dict[str, Any]:
    """Returns the object of a line that is JSON or a Python dictionary of constants. Raises ValueError."""
    try:
        return parse_json(line)
    except UnicodeError:
        raise
    except ValueError:
        pass
    try:
        return _checked(ast.literal_eval(line.decode("utf-8").strip()), line)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("neither JSON nor a Python dictionary of constants") from None


def _checked(content: object, line: bytes) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if b"\\ud" in line.lower():
        # Half of a surrogate pair can be written in JSON and is not a character.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    return content


def _is_json(line: bytes) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def _value(name: str, field: Field, value: object) -> object:
    """The value as its field asks for. Raises ValueError if it is of another kind, or null and required."""
    if value is None and not field.required:
        return None
    if value is None:
        raise ValueError(f"no '{name}'")
    converted = _date(value, field.form) if field.kind == "date" else _CONVERSIONS[field.kind](value)
    least, most = field.bounds or (-math.inf, math.inf)
    if converted is None or (isinstance(converted, int) and not least <= converted <= most):
        raise ValueError(f"'{name}' is not a {field.called}")
    return converted


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _texts(value: object, one: Callable[[object], str | None] = _text) -> list[str] | None:
    if not isinstance(value, list | tuple):
        text = one(value)
        return None if text is None else [text]
    parts = [_texts(part, one) for part in value if part is not None]
    return None if None in parts else [text for part in parts for text in part or ()]


def _whole(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _date(value: object, form: str) -> int | None:
    try:
        moment = datetime.strptime(value, form) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)


def _json(value: object) -> str | None:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple | bool) else _text(value)


_CONVERSIONS: dict[str, Callable[[object], object]] = {
    "text": _text,
    "texts": _texts,
    "parts": lambda value: _texts(value, _json),
    "whole": _whole,
    "number": _number,
    "json": _json,
}
