"""Lines with separators: in any file, a line is either read as it is or counted with its number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaemb_bench.core.errors import UserError
from reaemb_bench.data.lines import BadLines, Field, read_delimited

COLUMNS = ("user", "note", "stars", "time")
FIELDS = {
    "time": Field("whole", required=True),
    "user": Field("text", required=True),
    "stars": Field("number"),
}


def read(file: Path, separator: str = "::", header: bool = False) -> tuple[list[tuple[Any, ...]], BadLines]:
    malformed = BadLines(file, 10_000)
    return read_delimited(file, COLUMNS, FIELDS, separator, header, malformed).rows(), malformed


def plainly(content: bytes, separator: str, header: bool) -> tuple[list[tuple[Any, ...]], list[int]]:
    """The same, line by line and in Python alone."""
    rows, broken = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip() or (header and number == 1):
            continue
        try:
            user, _, stars, time = (cell.strip() for cell in line.decode("utf-8").split(separator))
            row = (int(time), user, float(stars) if stars else None)
            if not user or (row[2] is not None and not math.isfinite(row[2])):
                raise ValueError(line)
            rows.append(row)
        except ValueError:
            broken.append(number)
    return rows, broken


cells = st.sampled_from([b"7", b"12", b"u1", b" a b ", b"", b" ", b'"', b'"x"', b"4.5", b"1e3", b"nan", b"inf", b"-3"])
odd = st.sampled_from([b"\xc3\xa9", b"\xe9", b"a:b", b"x,y", b"q\tr"])
good = st.tuples(
    cells.filter(bytes.strip), cells, st.sampled_from([b"1", b"2.5", b""]), st.sampled_from([b"7", b" 99"])
)
line = st.one_of(good, good, st.lists(cells | odd, max_size=6))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    lines=st.lists(line, max_size=12),
    separator=st.sampled_from(["::", ",", "\t"]),
    end=st.sampled_from([b"\n", b"\r\n"]),
    closed=st.booleans(),
    header=st.booleans(),
)
def test_lines_are_read_or_counted_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[list[bytes]],
    separator: str,
    end: bytes,
    closed: bool,
    header: bool,
) -> None:
    content = end.join(separator.encode().join(each) for each in lines) + end * closed
    file = tmp_path_factory.mktemp("delimited") / "made.dat"
    file.write_bytes(content)
    rows, malformed = read(file, separator, header)
    expected, broken = plainly(content, separator, header)
    assert rows == expected
    assert malformed.count == len(broken)
    assert malformed.first == broken[:5]


@pytest.mark.slow
def test_numbers_of_broken_lines_hold_in_long_files(tmp_path: Path) -> None:
    lines = [f"u{number}::n::1::{number}" for number in range(1, 400_001)]
    broken = [3, 150_000, 299_999, 400_000]
    for number in broken:
        lines[number - 1] = "u::n::1"
    lines[199_999] = ""
    file = tmp_path / "long.dat"
    file.write_text("\n".join(lines), encoding="utf-8")
    rows, malformed = read(file)
    assert malformed.first == broken
    assert [row[0] for row in rows] == [number for number in range(1, 400_001) if number not in (200_000, *broken)]


def test_a_byte_order_mark_is_no_part_of_the_first_field(tmp_path: Path) -> None:
    file = tmp_path / "marked.dat"
    file.write_bytes(b"\xef\xbb\xbf1::n::1::7\n")
    assert read(file) == ([(7, "1", 1.0)], BadLines(file, 10_000))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"u::n::1", "fewer fields than 4"),
        (b"u::n::1::7::8", "more fields than 4"),
        (b" ::n::1::7", "no 'user'"),
        (b"u::n::1::", "no 'time'"),
        (b"u::n::1::7.5", "'time' is not a whole number"),
        (b"u::n::many::7", "'stars' is not a number"),
        (b"u::n\xff::1::7", "not in UTF-8"),
    ],
)
def test_the_error_says_what_is_wrong_with_the_line(text: bytes, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.dat"
    file.write_bytes(b"u::n::1::7\n" + text)
    with pytest.raises(UserError, match=rf"wrong\.dat: more than 0 .*lines 2; line 2: {fault}\)"):
        read_delimited(file, COLUMNS, FIELDS, "::", False, BadLines(file, 0))


def test_a_key_is_the_same_text_kept_once_and_a_control_character_spoils_one_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.txt"
    file.write_bytes(b"u1::::1::7\nu\x1f2::::1::8\nu\x002::::1::8\n u1 ::::1::9\n")
    malformed = BadLines(file, 10)
    frame = read_delimited(file, COLUMNS, {**FIELDS, "user": Field("key", required=True)}, "::", False, malformed)
    assert frame["user"].dtype == polars.Categorical
    assert frame.rows() == read(file)[0] == [(7, "u1", 1.0), (9, "u1", 1.0)]
    assert malformed.first == [2, 3]
    with pytest.raises(UserError, match="line 2: 'user' has a control character"):
        read_delimited(file, COLUMNS, FIELDS, "::", False, BadLines(file, 0))
