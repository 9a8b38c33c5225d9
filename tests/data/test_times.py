"""Order in time: different times stay different and in order, or are refused with the row and the cure."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.prepare import Prepare, fingerprint
from reaemb_bench.data.times import whole_times
from tests.conftest import Said
from tests.helpers.sources import read

FILE = Path("rows.csv")


def converted(values: list[Any], time_format: str = "", dtype: Any = None) -> tuple[list[int], str]:
    times, unit = whole_times(polars.Series("when", values, dtype), FILE, time_format)
    assert times.dtype == polars.Int64
    return times.to_list(), unit


def keeps_order(values: list[Any], exact: list[Any]) -> None:
    times, _ = converted(values)
    assert [time < other for time in times for other in times] == [one < other for one in exact for other in exact]


numbers = st.one_of(
    st.lists(st.integers(0, 10**8 - 1), min_size=2, max_size=20),
    st.lists(st.floats(0, 1, allow_nan=False), min_size=2, max_size=20),
    st.lists(st.floats(40_000, 50_000), min_size=2, max_size=20),
    st.lists(st.integers(1_400_000_000_000_000, 1_400_000_000_900_000).map(lambda t: t / 1e6), min_size=2, max_size=20),
    st.lists(st.integers(0, 10**9).map(lambda t: 1_400_000_000 + t), min_size=2, max_size=20),
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(numbers)
def test_numbers_keep_their_order_whatever_their_scale(values: list[Any]) -> None:
    keeps_order(values, values)
    keeps_order([repr(value) for value in values], values)


digits = st.tuples(st.integers(0, 3), st.integers(0, 10**9 - 1), st.integers(0, 9))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(digits, min_size=2, max_size=12), st.sampled_from([0, 1_500_000_000]))
def test_digits_that_floats_do_not_hold_are_kept(parts: list[tuple[int, int, int]], start: int) -> None:
    values = [f"{start + whole}.{below:09d}"[: len(str(start + whole)) + 1 + width] for whole, below, width in parts]
    values = [value.removesuffix(".") for value in values]
    keeps_order(values, [Fraction(value) for value in values])


moments = st.datetimes(datetime(1975, 1, 1), datetime(2200, 1, 1))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(moments, min_size=2, max_size=12), st.sampled_from(["iso", "T", "date", "Z", "typed"]))
def test_dates_keep_their_order(values: list[datetime], form: str) -> None:
    if form == "typed":
        keeps_order(values, values)
    elif form == "date":
        keeps_order([f"{value:%Y-%m-%d}" for value in values], [value.date() for value in values])
    else:
        text = [value.isoformat(" " if form == "iso" else "T") for value in values]
        keeps_order([one + "Z" * (form == "Z") for one in text], values)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([1_500_000_000, 1_500_000_001], "s"),
        ([1_500_000_000_000, 1_500_000_000_001], "ms"),
        (["1500000000.0002", "1500000000.0004"], "us"),
        ([1_500_000_000.0002, 1_500_000_000.0004], "us"),
        ([0.25, 0.5], "position"),
        ([45_292.5, 45_292.75], "position"),
        (["2024-05-31", "9999-12-31"], "s"),
        (["2024-05-31 10:00:00.25", "2024-05-31"], "ms"),
        ([datetime(2024, 5, 31), datetime(2024, 6, 1)], "us"),
        (["2024-05-31T10:00:00.123456789Z", "2024-05-31T10:00:00.123456788Z"], "ns"),
    ],
)
def test_the_unit_is_known(values: list[Any], unit: str) -> None:
    assert converted(values)[1] == unit


def test_offsets_from_utc_count() -> None:
    values = ["2024-05-31T10:00:00+02:00", "2024-05-31T09:00:00Z", "2024-05-31 08:30:00", "2024-05-31T03:00:00-0545"]
    times, _ = converted(values)
    base = int(datetime(2024, 5, 31, 8, tzinfo=UTC).timestamp())
    assert [time - base for time in times] == [0, 3600, 1800, 2700]


@pytest.mark.parametrize(
    ("values", "formats"),
    [
        (["10/04/2024", "09/05/2024"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["10/04/2024", "13/05/2024"], ["%d/%m/%Y"]),
        (["10/14/2024", "9/5/2024"], ["%m/%d/%Y"]),
        (["31.05.2024 10:00", "1.6.2024 9:30"], ["%d.%m.%Y %H:%M"]),
        (["05-31-2024"], ["%m-%d-%Y"]),
        (["5/4/24", "6/4/24"], ["%d/%m/%y", "%m/%d/%y", "%y/%m/%d"]),
        (["31/5/99 10:00:00"], ["%d/%m/%y %H:%M:%S"]),
        (["24-05-31", "24-06-01"], ["%d-%m-%y", "%y-%m-%d"]),
    ],
)
def test_dates_that_can_be_read_in_two_ways_are_refused_with_the_cure(values: list[str], formats: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        converted(values)
    message = str(caught.value)
    assert f"data row 1: '{values[0]}' is not a time" in message
    assert message.partition("time_format = ")[2].partition(" (")[0] == " or ".join(f'"{form}"' for form in formats)
    if values[0][0] != "2":
        for form in formats:
            assert len(set(converted(values, form)[0])) == len(values)


@pytest.mark.parametrize("value", ["31 May 2024", "2024-W22-5", "2024-05-31 10:00:00 PM"])
def test_dates_that_no_usual_format_fits_get_no_format_that_would_fail(value: str) -> None:
    with pytest.raises(UserError, match=rf"'{value}' is not a time; .* or set time_format to how they are written"):
        converted([value])


def test_a_format_reads_what_it_says_and_nothing_else() -> None:
    days = [converted(["10/04/2024", "09/05/2024"], form)[0] for form in ("%d/%m/%Y", "%m/%d/%Y")]
    assert days[0][0] < days[0][1]
    assert days[1][0] > days[1][1]
    assert converted(["31.05.24 17:02"], "%d.%m.%y %H:%M")[0] == [
        int(datetime(2024, 5, 31, 17, 2, tzinfo=UTC).timestamp() * 1e6)
    ]
    assert converted([20240531, 20240601], "%Y%m%d")[1] == "us"
    with pytest.raises(UserError, match=r"data row 2: '2024-05-31' is not a date of the form %d/%m/%Y"):
        converted(["10/04/2024", "2024-05-31"], "%d/%m/%Y")
    with pytest.raises(UserError, match=r"source\.time_format '%H' cannot be used"):
        converted(["10"], "%H")


@pytest.mark.parametrize(
    "values",
    [
        [0, 1_500_000_000],
        [-1, 1_500_000_000],
        [5, 1_500_000_000],
        ["1500000000", "0"],
        [1_500_000_000, 1_500_000_000_000],
        [1_500_000_000_000, 1_500_000_000_000_000],
        [1_500_000_000, 253_402_300_799],
        ["1970-01-01", "2024-05-31"],
        ["1969-12-31 23:59:59", "2024-05-31"],
        ["0001-01-01", "2024-05-31"],
        [datetime(1900, 1, 1), datetime(2024, 5, 31)],
        ["2024-05-31", ""],
        ["2024-05-31", None],
        ["2024-02-30", "2024-05-31"],
        [None, 1_500_000_000],
        [float("nan"), 1.5],
        [float("inf"), 1.5],
        ["1e400", "1"],
    ],
)
def test_what_is_not_a_time_is_refused_with_its_row(values: list[Any]) -> None:
    with pytest.raises(UserError, match=r"rows\.csv, column 'when', data row [12]: .* is not "):
        converted(values)


@pytest.mark.parametrize(
    "values", [["1500000000.0000000001", "1500000000.0000000002"], ["9500-01-01 00:00:00.000000001", "2024-01-01"]]
)
def test_times_that_would_fall_together_are_refused(values: list[str]) -> None:
    with pytest.raises(UserError, match="different times fall together in nanoseconds"):
        converted(values)


def test_positions_may_be_zero_or_negative() -> None:
    assert converted([-3, 0, 5]) == ([-3, 0, 5], "position")


def prepared(folder: Path, times: list[Any], **source: Any) -> tuple[str, dict[str, Any]]:
    """The fingerprint and the facts of a shop whose rows have these times."""
    count = len(times)
    folder.mkdir(exist_ok=True)
    polars.DataFrame(
        {
            "user_id": [f"u{row % 4}" for row in range(count)],
            "item_id": [f"i{row * 7 % 11}" for row in range(count)],
            "timestamp": polars.Series(times),
        }
    ).write_parquet(folder / "rows.parquet")
    (folder / "items.csv").write_text("item_id,title\ni0,Tea\ni1,Cup\n", encoding="utf-8")
    table = {"use": "table", "interactions": folder / "rows.parquet", "items": folder / "items.csv", "name": "shop"}
    facts: dict[str, Any] = {}
    step = build("step", {"use": "prepare", "source": {**table, **source}, "sampled_candidates": 2})
    assert isinstance(step, Prepare)
    parts = step.run(Context(1, Machine(), lambda _: None, facts.update, folder))
    assert facts["sha256"] == fingerprint(*parts)
    return facts["sha256"], facts


START = datetime(2001, 2, 3, 4, 5, 6)
RELABELLED: dict[str, Callable[[int], Any]] = {
    "positions": lambda rank: rank - 5,
    "positions as text": lambda rank: str(rank),
    "shares": lambda rank: rank / 1e7,
    "spreadsheet days": lambda rank: 45_000 + rank / 86_400,
    "seconds": lambda rank: 1_200_000_000 + rank**2,
    "seconds as text": lambda rank: f"{1_200_000_000 + rank}.0",
    "fractions of seconds": lambda rank: 1_200_000_000 + rank / 5_000,
    "digits beyond floats": lambda rank: f"1200000000.{rank:09d}",
    "milliseconds": lambda rank: 1_200_000_000_000 + rank,
    "nanoseconds": lambda rank: 1_200_000_000_000_000_000 + rank,
    "dates": lambda rank: f"{START + timedelta(days=rank):%Y-%m-%d}",
    "moments": lambda rank: (START + timedelta(microseconds=rank)).isoformat(),
    "typed dates": lambda rank: (START + timedelta(days=rank)).date(),
    "typed moments": lambda rank: START + timedelta(microseconds=rank),
}


@pytest.mark.parametrize("form", RELABELLED)
def test_any_relabelling_of_times_that_keeps_their_order_gives_the_same_corpus(form: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    ranks = rng.integers(60, size=80).tolist()
    base, facts = prepared(tmp_path / "base", ranks)
    other, relabelled = prepared(tmp_path / "other", [RELABELLED[form](rank) for rank in ranks])
    assert other == base
    assert relabelled == facts
    reverse, _ = prepared(tmp_path / "reverse", [60 - rank for rank in ranks])
    assert reverse != base


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_increasing_labels_give_the_same_corpus(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    ranks = data.draw(st.lists(st.integers(0, 9), min_size=16, max_size=30))
    labels = sorted(data.draw(st.sets(st.floats(0, 9e7) | st.floats(1.1e9, 1.2e9), min_size=10, max_size=10)))
    if labels[-1] >= 1e8:
        labels = [label if label >= 1e8 else label + 1e9 for label in labels]
        labels = sorted(set(labels))
    if len(labels) == 10:
        assert prepared(folder / "a", ranks)[0] == prepared(folder / "b", [labels[rank] for rank in ranks])[0]


def test_targets_that_share_their_time_are_counted_and_said(tmp_path: Path) -> None:
    _, apart = prepared(tmp_path / "apart", list(range(40)))
    assert (apart["tied_interactions"], apart["tied_validation_targets"], apart["tied_test_targets"]) == (0, 0, 0)
    assert "warning: ties" not in apart
    # Rows 36 to 39 are the last of the four users; two of them now share the time of the row before.
    times = list(range(40))
    times[36], times[37] = times[32], times[33]
    _, tied = prepared(tmp_path / "tied", times)
    assert (tied["tied_interactions"], tied["tied_validation_targets"], tied["tied_test_targets"]) == (4, 2, 2)
    assert "2 of 4 test targets share their time with another interaction of their user" in tied["warning: ties"]


def jsonl(file: Path, rows: list[str]) -> Path:
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


REVIEWS = {
    "amazon-2023": ("user_id", "parent_asin", "timestamp", 10**12),
    "amazon-2018": ("reviewerID", "asin", "unixReviewTime", 10**9),
    "amazon-2014": ("reviewerID", "asin", "unixReviewTime", 10**9),
}


@pytest.mark.parametrize("around", [1, 30])
@pytest.mark.parametrize("use", REVIEWS)
def test_sources_that_know_their_unit_count_other_units_as_malformed(use: str, around: int, tmp_path: Path) -> None:
    user, item, when, unit = REVIEWS[use]

    def review(time: int) -> str:
        return json.dumps({user: "u", item: "a", when: time})

    sound = [review(unit + row) for row in range(around)]
    other = unit * 1000 if unit < 10**10 else unit // 1000
    bad = [review(time) for time in (0, -unit, other, unit * 10**4, 253_402_300_799 if unit < 10**10 else 10**10)]
    reviews = jsonl(tmp_path / "r.json", sound + bad + sound)
    data = read(use, reviews=reviews, metadata=jsonl(tmp_path / "m.json", [json.dumps({item: "a", "title": "Tea"})]))
    assert data.frame["timestamp"].to_list() == [unit + row for row in range(around)]
    [(reason, gone)] = [(name, gone) for name, gone in data.removed.items() if name.startswith("malformed")]
    assert gone.interactions == len(bad), reason
    assert data.time_unit == ("ms" if use == "amazon-2023" else "s")


def test_a_date_of_the_year_9999_does_not_turn_a_file_into_milliseconds(tmp_path: Path) -> None:
    dates = ["2018-07-07 22:09:11", "0000-00-00 00:00:00", "1970-01-01 00:00:00", "1969-01-01 00:00:00"]
    dates.append("9999-12-31 23:59:59")
    rows = [f'{{"user_id": "u", "business_id": "b", "date": "{date}", "stars": 3}}' for date in dates]
    data = read(
        "yelp",
        reviews=jsonl(tmp_path / "r.json", rows),
        metadata=jsonl(tmp_path / "b.json", ['{"business_id": "b", "name": "Café"}']),
    )
    assert data.time_unit == "s"
    assert data.frame["timestamp"].to_list()[0] == 1531001351
    assert data.removed["malformed lines of r.json (first: 2, 3, 4, 5)"].interactions == 4


def test_movielens_counts_times_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("1::Tea (1999)::Drama\n", encoding="latin-1")
    times = (978300760, 0, -978300760, 978300760000, 978300761)
    (tmp_path / "ratings.dat").write_text("".join(f"1::1::4::{time}\n" for time in times))
    data = read("movielens-1m", path=tmp_path)
    assert data.frame["timestamp"].to_list() == [978300760, 978300761]
    assert data.removed["malformed lines of ratings.dat (first: 2, 3, 4)"].interactions == 3


def test_atomic_files_keep_fractions_of_seconds_apart_and_refuse_what_is_no_time(tmp_path: Path) -> None:
    (tmp_path / "a.item").write_text("item_id:token\ti\ni\tTea\n".replace("\ti\n", "\ttitle:token_seq\n", 1))
    header = "user_id:token\titem_id:token\ttimestamp:float\n"

    def times(*values: str) -> list[int]:
        (tmp_path / "a.inter").write_text(header + "".join(f"u\ti\t{value}\n" for value in values))
        return read("recbole-atomic", path=tmp_path).frame["timestamp"].to_list()

    kept = times("1417383424.0000001", "1417383424.0000003", "1417383424.0000002")
    assert kept[0] < kept[2] < kept[1]
    with pytest.raises(UserError, match=r"a\.inter, column 'timestamp', data row 2: '0' is not in the unit of"):
        times("1417383424", "0")


def test_ties_are_said_by_data_prepare_and_below_the_table(command: Callable[..., Said], tmp_path: Path) -> None:
    prepared(tmp_path, [row // 8 for row in range(40)])
    recipe = tmp_path / "tied.toml"
    recipe.write_text(
        'steps = ["prepare", "train", "rank"]\n'
        "[prepare]\nsource = { use = 'table', interactions = 'rows.parquet', items = 'items.csv' }\n"
        "[train]\nuse = 'train-ids'\nhead = { use = 'sasrec', hidden = 8, max_length = 10 }\nepochs = 1\n",
        encoding="utf-8",
    )
    files = {"interactions": tmp_path / "rows.parquet", "items": tmp_path / "items.csv"}
    sets = [word for name, file in files.items() for word in ("--set", f"prepare.source.{name}={file}")]
    for verb in (("data", "prepare"), ("run",)):
        said = command(*verb, recipe, *sets)
        assert said.code == 0, said.err
        words = " ".join(said.out.split())
        assert "warning: 4 of 4 test targets share their time with another interaction of their user" in words


@pytest.mark.parametrize("folder", ["st[o]re", "st*re", "what?", "ünï code"])
def test_a_store_may_have_any_name(folder: str, command: Callable[..., Said], toy_recipe: Path, tmp_path: Path) -> None:
    first = command("run", toy_recipe, "--store", tmp_path / folder)
    assert first.code == 0, first.err
    again = command("run", toy_recipe, "--store", tmp_path / folder)
    assert again.code == 0, again.err
    assert "everything was cached" in again.out


SHOP = """
from dataclasses import replace

import polars

from reaemb_bench import Component
from reaemb_bench.data.sources.simulated import Simulated


class Shop(Component):
    def read(self, machine):
        data = Simulated(users=30, items=20, clusters=2).read(machine)
        time = polars.col("timestamp")
        return replace(data, unit="unknown", frame=data.frame.with_columns({change}))
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("time", ""),
        ("(time - 1_600_000_000).alias('timestamp')", ""),
        (
            "polars.when(polars.int_range(polars.len()) == 3).then(0).otherwise(time).alias('timestamp')",
            "such as 0, are",
        ),
        (
            "polars.when(time % 7 == 0).then(time * 1000).otherwise(time).alias('timestamp')",
            "not in the unit of the others",
        ),
        ("time.cast(polars.Float64)", "column 'timestamp' is Float64; make it Int64"),
        ("polars.when(polars.int_range(polars.len()) > 3).then(time).alias('timestamp')", "has 4 nulls"),
        ("polars.lit(None, polars.String).alias('user')", "column 'user' has"),
        ("polars.lit(3).alias('item')", "column 'item' is Int32; make it String"),
    ],
)
def test_times_and_keys_of_a_plug_in_source_are_checked(change: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP.format(change=change), encoding="utf-8")
    step = build("step", {"use": "prepare", "source": f"{tmp_path / 'shop.py'}:Shop"})
    assert isinstance(step, Prepare)
    context = Context(1, Machine(), lambda _: None, lambda _: None, tmp_path)
    if not words:
        assert step.run(context)[0].users == 30
        return
    with pytest.raises(UserError, match=words) as caught:
        step.run(context)
    assert "\n" not in str(caught.value)
