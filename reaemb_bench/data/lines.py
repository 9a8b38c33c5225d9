"""Lines of text files, plain or gzip, a block at a time, and the one count of those that are malformed."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, TypeVar, cast

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import is_file
from reaemb_bench.data.interactions import FIRST_SECOND, LAST_SECOND, PER_SECOND, Removed, TimeUnit

MALFORMED_LIMIT = 100
_BLOCK = 4 * 2**20
_LONGEST = 16 * _BLOCK
_SHOWN = 5

T = TypeVar("T")


@dataclass(frozen=True)
class Field:
    """A field to read from each line.

    kind: text (a number becomes its digits), texts (a list; one text becomes a list, lists within lists are opened),
    parts (the same, and objects are kept as JSON text),
    whole (an integer), number (finite), decimal (a finite number as text, so that it keeps all its digits), date (text
    of the form `form`, read as whole seconds since 1970 in UTC), or json (anything; lists and objects are kept as JSON
    text). required: a line without it, or with null, is malformed.
    unit: of a whole number that is a time; a line with an implausible time is malformed.
    """

    kind: Literal["text", "texts", "parts", "whole", "number", "decimal", "date", "json"]
    required: bool = False
    unit: TimeUnit | None = None
    form: str = "%Y-%m-%d %H:%M:%S"

    @property
    def called(self) -> str:
        """What error messages call a value of this field."""
        if self.unit:
            return f"time in {'seconds' if self.unit == 's' else self.unit} after 1970"
        names = {"whole": "whole number", "texts": "list of texts", "json": "JSON value", "decimal": "number"}
        return names.get(self.kind, self.kind) if self.kind != "date" else f"date of the form {self.form} after 1970"

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The earliest and the latest plausible time; None if the field is not a time."""
        unit = "s" if self.kind == "date" else self.unit
        if unit is None:
            return None
        # Numbers of seconds are too small for any finer unit; in seconds they may be as small as they like.
        return 1 if unit == "s" else FIRST_SECOND * PER_SECOND[unit], LAST_SECOND * PER_SECOND[unit]


@dataclass
class BadLines:
    """The malformed lines of one file: how many, the numbers of the first (from 1), and how many are tolerated."""

    file: Path
    limit: int = MALFORMED_LIMIT
    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Counts a line. Raises UserError if there are more than `limit`."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(line)
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
