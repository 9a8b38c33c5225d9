"""Lines of text files, plain or gzip, a block at a time: JSON objects, or cells between separators.

A malformed line is counted with its number and left out. Polars reads whole blocks of JSON, but accepts more than it
should (an object where text is asked for becomes text), so doubtful rows are read again one by one, as are the blocks
that it refuses.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeVar, cast

import polars
from pydantic import Field as Setting

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import is_file
from reaemb_bench.data.interactions import FIRST_SECOND, LAST_SECOND, PER_SECOND, Removed, TimeUnit

MALFORMED_LIMIT = 100
MalformedLimit = Annotated[
    int, Setting(ge=0, description="Malformed lines of each file that are tolerated; they are counted and left out.")
]
_BLOCK = 4 * 2**20
_LONGEST = 16 * _BLOCK
_FEW = 16
"""Blocks of so few lines are read one by one."""
# What polars writes for lists, objects, truth values and halves of surrogate pairs if text is asked for.
_NOT_TEXT = r"^[\[{]|^(?:true|false)$|\x00"
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f]"
# Helper columns; no column of a file can have a line break in its name.
_LINE, _NUMBER, _MORE, _FAULT, _DOUBT = "\nline", "\nnumber", "\nmore", "\nfault", "\ndoubt"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Field:
    """A field to read from each line.

    kind: text (a number becomes its digits), key (a text that is often repeated and is kept once), json (anything;
    lists and objects are kept as JSON text), parts (a list of such texts; one value becomes a list, lists within lists
    are opened), whole (an integer), number (finite), decimal (a finite number as text, so that it keeps all its digits)
    or date (text of the form `form`, read as whole seconds since 1970 in UTC). required: a line without it, or with
    null, is malformed. unit: of a whole number that is a time; a line with an implausible time is malformed.
    """

    kind: Literal["text", "key", "json", "parts", "whole", "number", "decimal", "date"]
    required: bool = False
    unit: TimeUnit | None = None
    form: str = "%Y-%m-%d %H:%M:%S"

    @property
    def called(self) -> str:
        """What error messages call a value of this field."""
        if self.kind == "date":
            return f"date of the form {self.form} after 1970"
        if self.unit:
            return f"time in {'seconds' if self.unit == 's' else self.unit} after 1970"
        return {"whole": "whole number", "decimal": "number"}.get(self.kind, self.kind)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The earliest and the latest plausible time; None if the field is not a time."""
        unit = "s" if self.kind == "date" else self.unit
        if unit is None:
            return None
        # Numbers of seconds are too small for any finer unit; in seconds they may be as small as they like.
        return 1 if unit == "s" else FIRST_SECOND * PER_SECOND[unit], LAST_SECOND * PER_SECOND[unit]

    def read(self, name: str, content: Mapping[str, Any]) -> object:
        """Returns the value of this name in a JSON object, or None. Raises ValueError if it is of another kind."""
        if content.get(name) is None:
            if self.required:
                raise ValueError(f"no '{name}'")
            return None
        value = self._converted(self.kind, content[name])
        if value is None or (self.bounds and not self.bounds[0] <= value <= self.bounds[1]):
            raise ValueError(f"'{name}' is not a {self.called}")
        return value

    def _converted(self, kind: str, value: Any) -> Any:
        """A JSON value that is not null as this kind; None if it is of another."""
        if kind == "parts":
            if not isinstance(value, list | tuple):
                return [self._converted("json", value)]
            return [text for part in value if part is not None for text in self._converted(kind, part)]
        if kind == "date":
            try:
                moment = datetime.strptime(value, self.form)
            except (TypeError, ValueError):
                return None
            return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() // 1)
        if kind == "json" and isinstance(value, dict | list | tuple | bool):
            return json.dumps(value, ensure_ascii=False)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        if isinstance(value, float) and value.is_integer() and kind != "number":
            value = int(value)
        if kind in ("text", "key", "json"):
            return str(value)
        if kind == "number" and not isinstance(value, str):
            return float(value) if abs(value) <= sys.float_info.max else None
        return value if kind == "whole" and isinstance(value, int) and -(2**63) <= value < 2**63 else None


@dataclasses.dataclass
class BadLines:
    """The malformed lines of one file: how many, the numbers of the first (from 1), and how many are tolerated."""

    file: Path
    limit: int = MALFORMED_LIMIT
    count: int = 0
    first: list[int] = dataclasses.field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Counts a line. Raises UserError if there are more than `limit`."""
        self.count += 1
        self.first = [*self.first, line][:5]
        if self.count > self.limit:
            raise UserError(
                f"{self.file}: more than {self.limit} malformed lines (lines {self.numbers}; line {line}: {reason}); "
                "take the file that the setting asks for, whole, or raise malformed_limit"
            )

    @contextmanager
    def line(self, number: int) -> Iterator[None]:
        """A block that reads one line; if it raises ValueError, the line is counted as malformed."""
        try:
            yield
        except ValueError as error:
            self.add(number, "not in UTF-8" if isinstance(error, UnicodeError) else str(error))

    def removed(self, what: Literal["interactions", "items"]) -> dict[str, Removed]:
        """Returns the count of `what` by a reason that names file and first lines; empty if no line is malformed."""
        reason = f"malformed lines of {self.file.name} (first: {self.numbers})"
        return {reason: Removed(**{what: self.count})} if self.count else {}

    @property
    def hint(self) -> str:
        """For an error that malformed lines may have caused: how many there are and which are the first, or nothing."""
        return f" ({self.count} of its lines are malformed, first: {self.numbers})" if self.count else ""

    @property
    def numbers(self) -> str:
        """The numbers of the first malformed lines, such as `3, 17`."""
        return ", ".join(map(str, self.first))


def blocks(file: Path) -> Iterator[bytes]:
    """Yields whole lines, about 4 MB at a time, each line with its line feed and without a byte order mark.

    The name is taken literally; gzip is recognised by the first bytes. Raises UserError if the file is absent, ends
    early or has a line longer than 64 MB.
    """
    if not is_file(file):
        raise UserError(f"there is no file {file}; paths are relative to the recipe, else to the current folder")
    try:
        with file.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=plain)) if packed else plain
            mark = b"\xef\xbb\xbf"
            while block := stream.read(_BLOCK).removeprefix(mark):
                mark = b""
                if not block.endswith(b"\n"):
                    block += stream.readline(_LONGEST)
                if not block.endswith(b"\n"):
                    if len(block) >= _LONGEST:
                        raise UserError(f"{file}: a line is longer than {_LONGEST // 2**20} MB; end each row with one")
                    block += b"\n"
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{file} is not a whole gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror or error})") from None


def lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the number (from 1) and the bytes of each line that is not blank, without its end."""
    number = 0
    for block in blocks(file):
        for line in block[:-1].split(b"\n"):
            number += 1
            if line.strip():
                yield number, line.rstrip(b"\r")


def prefetched(blocks: Iterator[T]) -> Iterator[T]:
    """Yields the same blocks; a thread makes the next one while the caller uses the last."""
    with ThreadPoolExecutor(1) as worker:
        coming = worker.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = worker.submit(next, blocks, None)
            yield block


def read_json_lines(
    file: Path, fields: Mapping[str, Field], bad: BadLines, literals: bool = False
) -> Iterator[polars.DataFrame]:
    """Yields the wanted fields of all sound lines in the file's order, a frame at a time; blank lines are skipped.

    Columns are named after `fields` and are String, List(String), Int64 or Float64; null if a line lacks the field.
    bad: counts lines that are not a JSON object in UTF-8, have a field of another kind or lack a required one.
    literals: lines may also be Python dictionaries of constants (single quotes); nothing in them is executed.
    Raises UserError if the file is absent, ends early or has more malformed lines than tolerated.
    """
    raw_schema: dict[str, polars.DataType] = {}
    columns, doubts = [], [polars.lit(False)]
    for name, field in fields.items():
        raw = column = polars.col(name)
        raw_schema[name] = {"whole": polars.Int64(), "number": polars.Float64()}.get(field.kind, polars.String())
        if field.kind == "parts":
            raw_schema[name] = polars.List(polars.String)
            column = raw.list.drop_nulls()
            doubts.append(raw.list.eval(polars.element().str.contains(_NOT_TEXT)).list.any())
        elif field.kind == "date":
            column = raw.str.to_datetime(field.form, time_unit="us", strict=False).dt.epoch("s").alias(name)
            doubts.append(column.is_null() & raw.is_not_null())
        elif field.kind in ("text", "key", "json"):
            doubts.append(raw.str.contains(_NOT_TEXT))
        if field.required:
            doubts.append(column.is_null())
        if field.bounds:
            doubts.append(~column.is_between(*field.bounds))
        columns.append(column)
    wanted = [*columns, polars.any_horizontal(doubt.fill_null(False) for doubt in doubts).alias(_DOUBT)]
    nothing = polars.DataFrame(schema=raw_schema).select(wanted)

    def parsed(block: bytes) -> tuple[bytes, int, polars.DataFrame | None]:
        """The block, its number of lines, and what polars reads from it; None if it refuses it or skips lines."""
        height = block.count(b"\n")
        if height > _FEW:
            with suppress(polars.exceptions.PolarsError):
                frame = polars.read_ndjson(block, schema=raw_schema).lazy().select(wanted).collect()
                return block, height, frame if frame.height == height else None
        return block, height, None

    start = 1
    for block, height, frame in prefetched(map(parsed, blocks(file))):
        doubtful = [*range(height)] if frame is None else frame[_DOUBT].arg_true().to_list()
        frame = (nothing if frame is None else frame).drop(_DOUBT)
        if doubtful:
            lines, rows = block.split(b"\n"), []
            for row in doubtful:
                if lines[row].strip():
                    with bad.line(start + row):
                        content = parse_json(lines[row], literals=literals)
                        rows.append((row, *(field.read(name, content) for name, field in fields.items())))
            sound = frame.with_row_index(_NUMBER).filter(~polars.col(_NUMBER).is_in(doubtful))
            again = polars.DataFrame(rows, schema=sound.schema, orient="row")
            frame = polars.concat([sound, again]).sort(_NUMBER).drop(_NUMBER)
        start += height
        if frame.height:
            yield frame


def parse_json(line: bytes, constants: bool = False, literals: bool = False) -> dict[str, Any]:
    """Returns the object of a line. Raises ValueError with the reason if there is none.

    constants: NaN and Infinity are numbers, as Python writes them; otherwise they are not JSON. literals: the line may
    also be a Python dictionary of constants.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    text, content, reason = line.decode("utf-8"), None, "not a JSON object"
    try:
        content = json.loads(text, parse_constant=None if constants else refuse)
    except json.JSONDecodeError as error:
        reason = f"no valid JSON ({error.msg}, character {error.pos + 1})"
    except RecursionError:
        reason = "JSON nested too deeply"
    except ValueError as error:
        reason = str(error)
    if literals and not isinstance(content, dict):
        reason = "neither JSON nor a Python dictionary of constants"
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            content = ast.literal_eval(text.strip())
    if not isinstance(content, dict):
        raise ValueError(reason)
    if b"\\ud" in line.lower():
        # Half of a surrogate pair can be written in JSON and is not a character.
        try:
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            written = f"\\u{ord(error.object[error.start]):04x}"
            raise ValueError(f"{written} is half of a surrogate pair and no character") from None
    return content


def first_unreadable(file: Path, separator: str, quote: str) -> str:
    """Returns the first line of a CSV file that is not UTF-8 or has too many fields, as `line 7: ...`; "" if none."""
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for number, line in lines(file):  # noqa: B007
            yield line.decode("utf-8") + "\n"

    try:
        rows = csv.reader(
            texts(),
            delimiter=separator,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            strict=True,
        )
        width = len(next(rows, []))
        surplus = next((row for row in rows if len(row) > width), None)
        return "" if surplus is None else f"line {number}: {len(surplus)} fields under {width} names of columns"
    except UnicodeError:
        return f"line {number}: not in UTF-8"
    except (csv.Error, TypeError) as error:
        return f"line {number}: {error}"


def read_delimited(
    file: Path, columns: Sequence[str], fields: Mapping[str, Field], separator: str, header: bool, bad: BadLines
) -> polars.DataFrame:
    """Returns the wanted columns of all sound lines in the file's order; blank lines are skipped, quotes are text.

    columns: what stands in each line, in order. fields: those wanted, of kind text (String, without surrounding space),
    key (the same as Categorical), whole (Int64), number (Float64) or decimal (String); an empty cell is null. header:
    the first line is not a row. bad: counts lines that are not UTF-8, have more or fewer fields than columns, lack a
    required field, have control characters in a text or something else where a number or a time should be. Raises
    UserError if there are more of them than tolerated.
    """
    line, read = polars.col(_LINE), {}
    fault = (
        polars.when(line.str.contains("\ufffd", literal=True))
        .then(polars.lit("not in UTF-8"))
        .when(polars.col(columns[-1]).is_null())
        .then(polars.lit(f"fewer fields than {len(columns)}"))
        .when(polars.col(_MORE).is_not_null())
        .then(polars.lit(f"more fields than {len(columns)}"))
    )
    for name, field in fields.items():
        stripped = polars.col(name).str.strip_chars()
        filled = polars.when(stripped != "").then(stripped)
        if field.required:
            fault = fault.when(stripped == "").then(polars.lit(f"no '{name}'"))
        if field.kind in ("text", "key"):
            read[name] = filled if field.kind == "text" else filled.cast(polars.Categorical)
            broken = stripped.str.contains(_CONTROL)
            fault = fault.when(broken).then(polars.lit(f"'{name}' has a control character"))
        else:
            number = filled.cast(polars.Int64 if field.kind == "whole" else polars.Float64, strict=False)
            sound = number.is_between(*field.bounds) if field.bounds else number.is_finite()
            read[name] = polars.when(sound).then(filled if field.kind == "decimal" else number)
            wrong = (stripped != "") & read[name].is_null()
            fault = fault.when(wrong).then(polars.lit(f"'{name}' is not a {field.called}"))
    cells = line.str.split_exact(separator, len(columns)).struct.rename_fields([*columns, _MORE]).alias("")

    def judged(block: bytes) -> tuple[int, polars.DataFrame]:
        """How many lines a block has, and those that are not blank with their numbers, cells and faults."""
        text = polars.LazyFrame({_LINE: [block[:-1].decode("utf-8", "replace")]}, schema={_LINE: polars.String})
        filled = text.select(line.str.split("\n").explode()).with_row_index(_NUMBER, 1)
        filled = filled.filter(line.str.strip_chars() != "").with_columns(cells).unnest("")
        return block.count(b"\n"), filled.select(_NUMBER, fault.alias(_FAULT), **read).collect()

    start, frames = 0, [judged(b"\n")[1].drop(_NUMBER, _FAULT)]
    for height, rows in prefetched(map(judged, blocks(file))):
        if header and start == 0:
            rows = rows.filter(polars.col(_NUMBER) > 1)
        if rows[_FAULT].null_count() < rows.height:
            for number, reason in rows.filter(polars.col(_FAULT).is_not_null()).select(_NUMBER, _FAULT).rows():
                bad.add(start + number, reason)
            rows = rows.filter(polars.col(_FAULT).is_null())
        frames.append(rows.drop(_NUMBER, _FAULT))
        start += height
    return polars.concat(frames)
