"""Files of one JSON object a line, plain or gzip, read a block at a time: what memory holds does not grow with them.

Blocks go through polars. Only where it refuses one is that block halved until the lines at fault are alone, and these
are read again one by one, which decides what a line is worth; broken ones are counted, never dropped in silence.
"""

from __future__ import annotations

import ast
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import Removed

if TYPE_CHECKING:
    import polars


Kind = Literal["text", "texts", "whole", "number", "time", "json"]
"""What a field holds: text (a number becomes its digits), a list of texts (one text becomes a list, lists within lists
are opened), a whole number, a number, a date as text, which becomes whole seconds since 1970 in UTC, or anything, of
which lists and objects are kept as JSON text."""

MALFORMED_LIMIT = 100
_BLOCK = 4 * 2**20
_LONGEST = 16 * _BLOCK
_FEW = 16
_SHOWN = 5
# What polars writes for lists, objects, truth values and halves of surrogate pairs where text is asked for.
_NO_TEXT = r"^[\[{]|^(?:true|false)$|\x00"

Row = tuple[Any, ...]
Numbered = list[tuple[int, bytes]]


@dataclass(frozen=True)
class Field:
    """A field to read: its kind, whether a line without it, or with null, is malformed, and the form of its dates."""

    kind: Kind
    required: bool = False
    form: str = "%Y-%m-%d %H:%M:%S"


@dataclass
class Malformed:
    """The malformed lines of one file: how many, the numbers of the first (from 1), and how many are tolerated."""

    file: Path
    limit: int = MALFORMED_LIMIT
    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Count a line. Raises UserError where there are more than `limit`."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(line)
        if self.count > self.limit:
            raise UserError(
                f"{self.file}: more than {self.limit} malformed lines (lines {self._listed()}; line {line}: {reason}); "
                "take the file that the setting asks for, whole, or raise malformed_limit"
            )

    def removed(self, what: Literal["interactions", "items"]) -> dict[str, Removed]:
        """The lines, each one of `what`, under a reason that names file and first lines; empty where all are sound."""
        reason = f"malformed lines of {self.file.name} (first: {self._listed()})"
        return {reason: Removed(**{what: self.count})} if self.count else {}

    def _listed(self) -> str:
        return ", ".join(str(line) for line in self.first)


def read_lines(
    file: Path, fields: Mapping[str, Field], malformed: Malformed, literals: bool = False
) -> Iterator[polars.DataFrame]:
    """The wanted fields of all sound lines, in the file's order, a frame at a time; blank lines are none.

    Columns are named after `fields`: String, List(String), Int64 or Float64; null where a line lacks the field.
    malformed: where broken lines are counted: no JSON object, not UTF-8, a field of another kind, no required field.
    literals: lines may also be Python dictionaries of constants (single quotes), as some publishers wrote them.
    Raises UserError where the file is absent, ends early, or has more malformed lines than tolerated.
    """
    reader = _Reader(dict(fields), malformed, _of_either if literals else _of_json)
    number = 1
    for block in _ahead(map(reader.parsed, _blocks(file))):
        frame = reader.frame(block, number)
        number += block.height
        if frame.height:
            yield frame


@dataclass(frozen=True)
class _Block:
    """Whole lines, how many they are, and what polars makes of them; None where it was not asked, or refused them."""

    content: bytes
    height: int
    raw: polars.DataFrame | None
    refused: bool = False


@dataclass(frozen=True)
class _Reader:
    fields: dict[str, Field]
    malformed: Malformed
    parse: Callable[[str], object]

    def parsed(self, content: bytes) -> _Block:
        """A block of whole lines, read generously; nothing is counted yet."""
        import polars

        height = content.count(b"\n")
        if height <= _FEW or (self.parse is _of_either and not _is_json(content[: content.find(b"\n")])):
            return _Block(content, height, None)
        try:
            return _Block(content, height, polars.read_ndjson(content, schema=self._schema(raw=True)))
        except polars.exceptions.PolarsError:
            return _Block(content, height, None, refused=True)

    def frame(self, block: _Block, number: int) -> polars.DataFrame:
        """The rows of a block whose first line has this number."""
        import polars

        content = block.content
        if block.raw is not None:
            return self._checked(block.raw, content, number)
        if not block.refused:
            return self._one_by_one(_numbered(content, number))
        half = content.find(b"\n", len(content) // 2) + 1
        if half == len(content):
            half = content.find(b"\n") + 1
        above, below = self.parsed(content[:half]), self.parsed(content[half:])
        return polars.concat([self.frame(above, number), self.frame(below, number + above.height)])

    def _checked(self, frame: polars.DataFrame, block: bytes, number: int) -> polars.DataFrame:
        """The frame, after those of its rows that polars reads too generously were read again."""
        import polars

        raw, frame = frame, frame.with_columns(self._converted())
        places = frame.select(polars.any_horizontal(*self._doubts(raw))).to_series().arg_true().to_list()
        if places:
            lines = _numbered(block, number)
            if len(lines) != frame.height:
                return self._one_by_one(lines)
            again = [(place, *lines[place]) for place in places]
            kept = [(place, row) for place, line, text in again if (row := self._row(line, text)) is not None]
            redone = self._made([row for _, row in kept]).insert_column(
                0, polars.Series("", [place for place, _ in kept], polars.UInt32)
            )
            placed = frame.with_row_index("").filter(~polars.col("").is_in(places))
            frame = polars.concat([placed.cast({"": polars.UInt32}), redone]).sort("").drop("")
        return frame

    def _converted(self) -> Iterator[polars.Expr]:
        import polars

        for name, wanted in self.fields.items():
            if wanted.kind == "texts":
                yield polars.col(name).list.drop_nulls()
            elif wanted.kind == "time":
                moment = polars.col(name).str.to_datetime(wanted.form, time_unit="us", strict=False)
                yield moment.dt.epoch("s").alias(name)

    def _doubts(self, raw: polars.DataFrame) -> Iterator[polars.Expr | polars.Series]:
        import polars

        for name, wanted in self.fields.items():
            column = polars.col(name)
            if wanted.required:
                yield column.is_null()
            if wanted.kind in ("text", "json"):
                yield column.str.contains(_NO_TEXT).fill_null(False)
            elif wanted.kind == "texts":
                yield column.list.eval(polars.element().str.contains(_NO_TEXT)).list.any().fill_null(False)
            elif wanted.kind == "time":
                yield column.is_null() & polars.lit(raw[name].is_not_null())

    def _one_by_one(self, lines: Numbered) -> polars.DataFrame:
        return self._made([row for number, line in lines if (row := self._row(number, line)) is not None])

    def _made(self, rows: list[Row]) -> polars.DataFrame:
        import polars

        return polars.DataFrame(rows, schema=self._schema(), orient="row")

    def _row(self, number: int, line: bytes) -> Row | None:
        try:
            content = self.parse(line.decode("utf-8"))
            if not isinstance(content, dict):
                raise ValueError("no object in braces")
            return tuple(_value(name, wanted, content.get(name)) for name, wanted in self.fields.items())
        except UnicodeError:
            self.malformed.add(number, "not in UTF-8")
        except RecursionError:
            self.malformed.add(number, "nested too deeply")
        except ValueError as error:
            self.malformed.add(number, str(error))
        return None

    def _schema(self, raw: bool = False) -> dict[str, polars.DataType]:
        import polars

        types = {"whole": polars.Int64(), "number": polars.Float64(), "texts": polars.List(polars.String)}
        if not raw:
            types["time"] = polars.Int64()
        return {name: types.get(wanted.kind, polars.String()) for name, wanted in self.fields.items()}


def _ahead(blocks: Iterator[_Block]) -> Iterator[_Block]:
    """The same blocks, each made by a thread of its own while the one before is in use."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = worker.submit(next, blocks, None)
            yield block


def _blocks(file: Path) -> Iterator[bytes]:
    """Whole lines, about `_BLOCK` bytes at a time, each with its line feed, the last one's added where it lacks."""
    try:
        with _opened(file) as stream:
            start = b"\xef\xbb\xbf"
            while block := stream.read(_BLOCK).removeprefix(start):
                start = b""
                if not block.endswith(b"\n"):
                    block += stream.readline(_LONGEST)
                if not block.endswith(b"\n"):
                    if len(block) >= _LONGEST:
                        raise UserError(f"{file}: a line is longer than {_LONGEST // 2**20} MB; give one object a line")
                    block += b"\n"
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{file} is no whole gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error})") from None


def _opened(file: Path) -> IO[bytes]:
    if not file.is_file():
        raise UserError(f"there is no file {file}; paths are relative to where you start the program")
    with file.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(file, "rb")) if packed else file.open("rb")


def _numbered(block: bytes, number: int) -> Numbered:
    return [(place, line) for place, line in enumerate(block.split(b"\n"), number) if line.strip(b" \t\r")]


def _of_json(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg}, character {error.pos + 1})") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _of_either(text: str) -> object:
    try:
        return _of_json(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError):
        raise ValueError("neither JSON nor a Python dictionary of constants") from None


def _is_json(line: bytes) -> bool:
    try:
        _of_json(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    return True


def _value(name: str, wanted: Field, value: object) -> object:
    if value is None:
        if wanted.required:
            raise ValueError(f"no '{name}'")
        return None
    made = _seconds(value, wanted.form) if wanted.kind == "time" else _CONVERSIONS[wanted.kind](value)
    if made is None:
        raise ValueError(f"'{name}' is no {_CALLED[wanted.kind]}")
    return made


def _text(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else value
    text = str(value)
    text.encode("utf-8")
    return text


def _texts(value: object) -> list[str] | None:
    texts: list[str] = []
    for each in value if isinstance(value, list | tuple) else [value]:
        if each is None:
            continue
        more = _texts(each) if isinstance(each, list | tuple) else _text(each)
        if more is None:
            return None
        texts += [more] if isinstance(more, str) else more
    return texts


def _whole(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _seconds(value: object, form: str) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.strptime(value, form)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)


def _anything(value: object) -> str | None:
    if isinstance(value, dict | list | tuple | bool):
        return json.dumps(value, ensure_ascii=False)
    return _text(value)


_CONVERSIONS: dict[Kind, Callable[[object], object]] = {
    "text": _text,
    "texts": _texts,
    "whole": _whole,
    "number": _number,
    "json": _anything,
}
_CALLED: dict[Kind, str] = {
    "text": "text",
    "texts": "list of texts",
    "whole": "whole number",
    "number": "number",
    "time": "date of the known form",
    "json": "JSON value",
}
