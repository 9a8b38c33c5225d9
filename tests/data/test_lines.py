"""JSON lines: in any file, a line is either read as it is or counted with its number."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaemb_bench.core.errors import UserError
from reaemb_bench.data import lines
from reaemb_bench.data.interactions import Removed
from reaemb_bench.data.lines import BadLines, Field, read_json_lines

FIELDS = {
    "user": Field("text", required=True),
    "time": Field("whole", required=True),
    "stars": Field("number"),
    "tags": Field("parts"),
}
GOOD = b'{"user": "u", "time": 7, "stars": 4.5, "tags": ["a"], "more": {"user": "w"}}'
READ = ("u", 7, 4.5, ["a"])


def read(file: Path, limit: int = 100, literals: bool = False) -> tuple[list[tuple[Any, ...]], BadLines]:
    malformed = BadLines(file, limit)
    frames = list(read_json_lines(file, FIELDS, malformed, literals))
    return [row for frame in frames for row in frame.rows()], malformed


def write(folder: Path, *given: bytes, end: bytes = b"\n") -> Path:
    file = folder / "made.jsonl"
    file.write_bytes(b"\n".join(given) + end)
    return file


BROKEN = {
    "cut off": b'{"user": "u", "time": 7',
    "two objects": GOOD + GOOD,
    "text behind": GOOD + b" x",
    "no object": b'["u", 7]',
    "a null": b"null",
    "no user": b'{"time": 7}',
    "user is null": b'{"user": null, "time": 7}',
    "user is a list": b'{"user": ["u"], "time": 7}',
    "user is an object": b'{"user": {"u": 1}, "time": 7}',
    "user is true": b'{"user": true, "time": 7}',
    "user is half a surrogate pair": b'{"user": "u\\ud800", "time": 7}',
    "no time": b'{"user": "u"}',
    "time is text": b'{"user": "u", "time": "7"}',
    "time is NaN": b'{"user": "u", "time": NaN}',
    "time is a fraction": b'{"user": "u", "time": 7.5}',
    "time is too large": b'{"user": "u", "time": 9223372036854775808}',
    "stars are infinite": b'{"user": "u", "time": 7, "stars": Infinity}',
    "stars overflow": b'{"user": "u", "time": 7, "stars": 1e999}',
    "stars are text": b'{"user": "u", "time": 7, "stars": "4"}',
    "Latin-1": b'{"user": "\xe9", "time": 7}',
    "Latin-1 in a field nobody reads": b'{"user": "u", "time": 7, "text": "\xe9"}',
    "nested without end": b'{"user": ' + b"[" * 100_000,
    "single quotes": b"{'user': 'u', 'time': 7}",
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("around", [1, 60])
def test_a_malformed_line_costs_nothing_but_itself_and_is_counted(line: bytes, around: int, tmp_path: Path) -> None:
    rows, malformed = read(write(tmp_path, *[GOOD] * around, b"", line, b"  ", *[GOOD] * around))
    assert rows == [READ] * 2 * around
    assert malformed.removed("items") == {f"malformed lines of made.jsonl (first: {around + 2})": Removed(items=1)}


TOLERATED = {
    "a number as a key": (b'{"user": 7, "time": 7}', ("7", 7, None, None)),
    "a whole number with a point": (b'{"user": "u", "time": 7.0}', ("u", 7, None, None)),
    "one text for a list": (b'{"user": "u", "time": 7, "tags": "a"}', ("u", 7, None, ["a"])),
    "lists in a list": (b'{"user": "u", "time": 7, "tags": [["a", null], ["b"]]}', ("u", 7, None, ["a", "b"])),
    "an object for a list": (b'{"user": "u", "time": 7, "tags": {"a": 1}}', ("u", 7, None, ['{"a": 1}'])),
    "an object in a list": (b'{"user": "u", "time": 7, "tags": [{"a": 1}]}', ("u", 7, None, ['{"a": 1}'])),
    "a user in brackets": (b'{"user": "[u]", "time": 7}', ("[u]", 7, None, None)),
    "nulls": (b'{"user": "u", "time": 7, "stars": null, "tags": [null]}', ("u", 7, None, [])),
    "a carriage return": (GOOD + b"\r", READ),
    "an escaped name": (b'{"\\u0075ser": "\\ud83d\\ude00", "time": 7}', ("😀", 7, None, None)),
}


@pytest.mark.parametrize(("line", "row"), TOLERATED.values(), ids=TOLERATED.keys())
@pytest.mark.parametrize("around", [1, 60])
def test_an_odd_line_is_read_in_its_place(line: bytes, row: tuple[Any, ...], around: int, tmp_path: Path) -> None:
    rows, malformed = read(write(tmp_path, *[GOOD] * around, line, *[GOOD] * around))
    assert rows == [READ] * around + [row] + [READ] * around
    assert malformed.removed("interactions") == {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines")


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(0.5, 1e6).map(lambda value: round(value, 2)),
    st.text(max_size=4),
    st.sampled_from(["[", "{}", "true", "\x00", "NaN", "\\", '"', "\n"]),
)
nested = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))
objects = st.fixed_dictionaries({}, optional=dict.fromkeys([*FIELDS, "more"], nested))
plain = st.fixed_dictionaries(
    {"user": st.text(min_size=1, max_size=4), "time": st.integers(0, 9)},
    optional={"stars": st.floats(0, 5), "tags": st.lists(st.text(max_size=3), max_size=3)},
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(plain, plain, plain, objects, nested), min_size=1, max_size=80))
def test_a_block_gives_what_its_lines_give_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, made: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    given = [json.dumps(each).encode() for each in made]
    rows, malformed = read(write(folder, *given))
    alone = [read(write(folder, line)) for line in given]
    assert rows == [row for found, _ in alone for row in found]
    assert malformed.count == sum(found.count for _, found in alone)


@pytest.mark.slow
def test_blocks_end_where_lines_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [GOOD.replace(b'"u"', b'"u%d"' % place) for place in range(50)]
    given[30] = b"broken"
    file = write(tmp_path, *given, end=b"")
    whole, malformed = read(file)
    assert [row[0] for row in whole] == [f"u{place}" for place in range(50) if place != 30]
    for size in (1, 7, 100, 1000):
        monkeypatch.setattr(lines, "_BLOCK", size)
        assert read(file) == (whole, malformed)
    assert malformed.first == [31]


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_and_gzip_are_seen_by_the_bytes_not_the_name(packed: bool, tmp_path: Path) -> None:
    file = write(tmp_path, b"\xef\xbb\xbf" + GOOD, GOOD)
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes()))
    assert read(file)[0] == [READ, READ]


def test_too_many_malformed_lines_are_one_error_that_names_the_first(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD, b"[1]", GOOD, b'{"user": "u"}', b"{")
    assert read(file, limit=3)[1].first == [2, 4, 5]
    with pytest.raises(
        UserError, match=r"more than 1 malformed lines \(lines 2, 4; line 4: no 'time'\).*malformed_limit"
    ):
        read(file, limit=1)
    with pytest.raises(UserError, match="more than 0 malformed lines"):
        read(file, limit=0)


def test_a_file_that_ends_early_is_told_from_a_broken_line(tmp_path: Path) -> None:
    file = tmp_path / "cut.jsonl.gz"
    file.write_bytes(gzip.compress(GOOD * 100)[:-9])
    with pytest.raises(UserError, match=r"cut\.jsonl\.gz is not a whole gzip file"):
        read(file)
    with pytest.raises(UserError, match="there is no file"):
        read(tmp_path / "absent.jsonl")


def test_a_file_without_line_feeds_is_no_reason_to_take_all_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 10)
    monkeypatch.setattr(lines, "_LONGEST", 200)
    assert read(write(tmp_path, GOOD))[0] == [READ]
    with pytest.raises(UserError, match="a line is longer than"):
        read(write(tmp_path, b"[" + b",".join([GOOD] * 5) + b"]"))


LITERAL = b"{'user': 'O\\'Neil', 'time': 7, 'tags': [['a', 'b']], 'more': None}"


def test_python_dictionaries_are_read_where_they_are_allowed_and_nothing_is_executed(tmp_path: Path) -> None:
    evil = b"{'user': __import__('os').getcwd(), 'time': 7}"
    rows, malformed = read(write(tmp_path, LITERAL, *[GOOD] * 40, LITERAL, evil, b"{'user'", b"7"), literals=True)
    known = ("O'Neil", 7, None, ["a", "b"])
    assert rows == [known, *[READ] * 40, known]
    assert malformed.first == [43, 44, 45]


def test_lists_and_objects_are_kept_as_json_where_anything_goes(tmp_path: Path) -> None:
    file = write(tmp_path, *[b'{"any": "plain"}'] * 30, b'{"any": {"a": ["\xc3\xa9", null]}}', b'{"any": [1]}', b"{}")
    frame = polars.concat(read_json_lines(file, {"any": Field("json")}, BadLines(file)))
    assert frame["any"].to_list() == ["plain"] * 30 + ['{"a": ["é", null]}', "[1]", None]


@pytest.mark.parametrize("around", [1, 60])
def test_dates_become_seconds_and_what_is_none_is_malformed(around: int, tmp_path: Path) -> None:
    good = [b'{"when": "1970-01-02 00:00:01"}'] * around
    bad = [b'{"when": "1970-01-02"}', b'{"when": "1970-02-31 00:00:00"}', b'{"when": 86401}']
    fields, malformed = {"when": Field("date")}, BadLines(tmp_path / "made.jsonl")
    frame = polars.concat(read_json_lines(write(tmp_path, *good, *bad, b"{}", *good), fields, malformed))
    assert frame["when"].to_list() == [86401] * around + [None] + [86401] * around
    assert malformed.count == 3
    zoned = {"when": Field("date", form="%a %b %d %H:%M:%S %z %Y")}
    file = write(tmp_path, *[b'{"when": "Thu Jan 01 02:00:00 +0100 1970"}'] * 2 * around)
    assert polars.concat(read_json_lines(file, zoned, malformed))["when"].to_list() == [3600] * 2 * around
