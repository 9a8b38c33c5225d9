"""Filters against brute force, and what they say is gone."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reaemb_bench.core.errors import UserError
from reaemb_bench.data.filters import DropRepeats, DropUsersOfRareItems, KCore, Limit, MinimumRating, Years
from reaemb_bench.data.interactions import Interactions, Removed

Rows = list[tuple[str, str, int, float | None]]
SCHEMA = {"user": polars.String, "item": polars.String, "timestamp": polars.Int64, "rating": polars.Float64}

rows = st.lists(
    st.tuples(
        st.sampled_from("uvwxyz"), st.sampled_from("abcdef"), st.integers(0, 3), st.sampled_from([None, 1.0, 3.0, 5.0])
    ),
    max_size=40,
)


def interactions(data: Rows) -> Interactions:
    return Interactions("made", polars.DataFrame(data, schema=SCHEMA, orient="row"), {}, "")


def gone(before: Rows, after: Rows) -> Removed:
    users, items = (len({row[place] for row in before}) - len({row[place] for row in after}) for place in (0, 1))
    return Removed(len(before) - len(after), users, items)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 4), st.integers(1, 4))
def test_drop_users_of_rare_items_is_the_largest_set_without_rare_items(data: Rows, users: int, items: int) -> None:
    kept = list(data)
    # One user at a time, in any order: the result is the same.
    while True:
        held, owned = Counter(row[1] for row in kept), Counter(row[0] for row in kept)
        bad = next((row[0] for row in kept if owned[row[0]] < users or held[row[1]] < items), None)
        if bad is None:
            break
        kept = [row for row in kept if row[0] != bad]
    made = DropUsersOfRareItems(user_minimum=users, item_minimum=items).apply(interactions(data))
    assert made.frame.rows() == kept
    assert made.removed == {"DropUsersOfRareItems": gone(data, kept)}


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 4), st.integers(1, 4))
def test_k_core_is_the_largest_core(data: Rows, users: int, items: int) -> None:
    kept = list(data)
    while True:
        held, owned = Counter(row[1] for row in kept), Counter(row[0] for row in kept)
        bad = next((row for row in kept if owned[row[0]] < users or held[row[1]] < items), None)
        if bad is None:
            break
        kept.remove(bad)
    made = KCore(user_minimum=users, item_minimum=items).apply(interactions(data))
    assert sorted(made.frame.rows(), key=repr) == sorted(kept, key=repr)
    assert made.removed == {"KCore": gone(data, kept)}


def test_a_rare_item_costs_the_user_here_and_only_the_item_there() -> None:
    data: Rows = [*((user, item, 0, None) for user in "uvw" for item in "abc"), ("u", "rare", 1, None)]
    paper = DropUsersOfRareItems(user_minimum=3, item_minimum=2).apply(interactions(data))
    core = KCore(user_minimum=3, item_minimum=2).apply(interactions(data))
    assert set(paper.frame["user"]) == {"v", "w"}
    assert set(core.frame["user"]) == {"u", "v", "w"}


def test_ratings() -> None:
    made = MinimumRating(minimum=3).apply(interactions([("u", "a", 0, 3.0), ("u", "b", 1, 2.5), ("u", "c", 2, None)]))
    assert made.frame["item"].to_list() == ["a"]
    assert made.removed == {"MinimumRating": Removed(interactions=2, items=2)}
    with pytest.raises(UserError, match="has no ratings"):
        MinimumRating().apply(interactions([("u", "a", 0, None)]))


def test_a_filter_used_twice_counts_both_times() -> None:
    data = interactions([("u", "a", 0, 3.0), ("u", "b", 1, 2.0), ("u", "c", 2, 1.0)])
    twice = MinimumRating(minimum=3).apply(MinimumRating(minimum=2).apply(data))
    assert twice.removed == {"MinimumRating": Removed(interactions=2, items=2)}


def test_what_is_removed_reads_as_a_sentence() -> None:
    assert str(Removed(1203, 88, 40)) == "1,203 interactions, 88 users, 40 items"
    assert str(Removed(items=1)) == "1 items"
    assert str(Removed()) == "nothing"


def at(moment: str, unit: str) -> int:
    seconds = int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())
    return seconds * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_years_are_calendar_years_in_utc_whatever_the_unit(unit: str) -> None:
    moments = ["1999-12-31T23:59:59", "2000-01-01T00:00:00", "2024-12-31T23:59:59", "2025-01-01T00:00:00"]
    data = interactions([("u", item, at(moment, unit), None) for item, moment in zip("abcd", moments, strict=True)])
    assert data.time_unit == unit
    assert Years(first=2000, last=2024).apply(data).frame["item"].to_list() == ["b", "c"]
    assert Years(first=2000).apply(data).frame["item"].to_list() == ["b", "c", "d"]
    made = Years(last=2024).apply(data)
    assert made.frame["item"].to_list() == ["a", "b", "c"]
    assert made.removed == {"Years": Removed(interactions=1, items=1)}


def test_positions_have_no_year_and_years_have_an_order() -> None:
    with pytest.raises(UserError, match=r"positions, not times, so no year is known; drop the filter 'Years' or"):
        Years(first=2000).apply(interactions([("u", "a", 12, None)]))
    with pytest.raises(ValidationError, match="last = 2000 lies before first = 2024"):
        Years(first=2024, last=2000)
    assert Years(first=2000).apply(interactions([])).removed == {"Years": Removed()}


@settings(max_examples=60, deadline=None)
@given(rows, st.booleans())
def test_repeats_go_and_a_users_first_row_of_each_item_stays(data: Rows, consecutive: bool) -> None:
    kept = set()
    owned: dict[str, list[str]] = {}
    for number in sorted(range(len(data)), key=lambda number: data[number][2]):
        user, item, _, _ = data[number]
        earlier = owned.setdefault(user, [])
        if item not in (earlier[-1:] if consecutive else earlier):
            kept.add(number)
        earlier.append(item)
    expected = [row for number, row in enumerate(data) if number in kept]
    left = DropRepeats(consecutive=consecutive).apply(interactions(data))
    assert left.frame.rows() == expected
    assert left.removed == {"DropRepeats": gone(data, expected)}


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_limit_keeps_the_newest_rows_of_the_busiest_users_and_items(
    data: Rows, users: int, items: int, history: int
) -> None:
    kept = list(data)
    for column, count in ((1, items), (0, users)):
        busiest = sorted(Counter(row[column] for row in kept).items(), key=lambda pair: (-pair[1], pair[0]))[:count]
        kept = [row for row in kept if row[column] in dict(busiest)]
    by_time = sorted(range(len(kept)), key=lambda number: kept[number][2])
    newer = {
        number: sum(kept[later][0] == kept[number][0] for later in by_time[rank + 1 :])
        for rank, number in enumerate(by_time)
    }
    kept = [row for number, row in enumerate(kept) if newer[number] < history]
    limited = Limit(users=users, items=items, history=history).apply(interactions(data))
    assert limited.frame.rows() == kept
