"""Filters against brute force, and what a split may and may not do."""

from __future__ import annotations

from collections import Counter
from random import Random

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaemb_bench.data.filters import DropUsersOfRareItems, KCore, MinimumRating
from reaemb_bench.data.interactions import Interactions, SplitInteractions
from reaemb_bench.data.splits import LeaveLastTwo
from reaemb_bench.errors import UserError

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


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 4), st.integers(1, 4))
def test_drop_users_of_rare_items_is_the_largest_set_without_rare_items(data: Rows, users: int, items: int) -> None:
    kept = list(data)
    # One user at a time, in whatever order: the result is the same.
    while True:
        held, owned = Counter(row[1] for row in kept), Counter(row[0] for row in kept)
        bad = next((row[0] for row in kept if owned[row[0]] < users or held[row[1]] < items), None)
        if bad is None:
            break
        kept = [row for row in kept if row[0] != bad]
    made = DropUsersOfRareItems(user_minimum=users, item_minimum=items).apply(interactions(data))
    assert made.frame.rows() == kept
    assert made.removed == {"DropUsersOfRareItems": len(data) - len(kept)}


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


def test_a_rare_item_costs_the_user_here_and_only_the_item_there() -> None:
    data: Rows = [(user, item, 0, None) for user in "uvw" for item in "abc"] + [("u", "rare", 1, None)]
    paper = DropUsersOfRareItems(user_minimum=3, item_minimum=2).apply(interactions(data))
    core = KCore(user_minimum=3, item_minimum=2).apply(interactions(data))
    assert set(paper.frame["user"]) == {"v", "w"}
    assert set(core.frame["user"]) == {"u", "v", "w"}


def test_ratings() -> None:
    made = MinimumRating(minimum=3).apply(interactions([("u", "a", 0, 3.0), ("u", "b", 1, 2.5), ("u", "c", 2, None)]))
    assert made.frame["item"].to_list() == ["a"]
    with pytest.raises(UserError, match="has no ratings"):
        MinimumRating().apply(interactions([("u", "a", 0, None)]))


def test_a_filter_used_twice_counts_both_times() -> None:
    data = interactions([("u", "a", 0, 3.0), ("u", "b", 1, 2.0), ("u", "c", 2, 1.0)])
    twice = MinimumRating(minimum=3).apply(MinimumRating(minimum=2).apply(data))
    assert twice.removed == {"MinimumRating": 2}


def parts(made: SplitInteractions) -> list[polars.DataFrame]:
    return [made.training, made.validation, made.test]


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(0, 5))
def test_leave_last_two(data: Rows, seed: int) -> None:
    made = LeaveLastTwo().apply(interactions(data), seed)
    assert sorted((row for part in parts(made) for row in part.rows()), key=repr) == sorted(data, key=repr)
    owned = Counter(row[0] for row in data)
    long = {user for user, count in owned.items() if count >= 3}
    assert sorted(made.test["user"]) == sorted(made.validation["user"]) == sorted(long)
    validated, tested = (dict(zip(part["user"], part["timestamp"], strict=True)) for part in parts(made)[1:])
    for user in owned:
        learned = made.training.filter(user=user)["timestamp"].to_list()
        assert learned == sorted(learned)
        assert learned
        if user in long:
            assert learned[-1] <= validated[user] <= tested[user]


def test_ties_are_drawn_and_the_seed_decides() -> None:
    data = interactions([("u", item, 0, None) for item in "abcdefgh"])
    last = [LeaveLastTwo().apply(data, seed).test["item"][0] for seed in range(40)]
    assert len(set(last)) > 4
    assert last == [LeaveLastTwo().apply(data, seed).test["item"][0] for seed in range(40)]


def test_positions_leave_nothing_to_the_seed() -> None:
    data = interactions([("u", item, place, None) for place, item in enumerate("hgfedcba")])
    assert all(LeaveLastTwo().apply(data, seed).test["item"][0] == "a" for seed in range(5))


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(0, 5), st.randoms(use_true_random=False))
def test_exchanged_targets_move_no_training_row_even_among_ties(data: Rows, seed: int, chance: Random) -> None:
    # The rating says which row of the file it is.
    marked: Rows = [(user, item, time, float(place)) for place, (user, item, time, _) in enumerate(data)]
    before = LeaveLastTwo().apply(interactions(marked), seed)
    for part in (before.validation, before.test):
        places = [int(place) for place in part["rating"]]
        items = [marked[place][1] for place in places]
        chance.shuffle(items)
        for place, item in zip(places, items, strict=True):
            marked[place] = (marked[place][0], item, *marked[place][2:])
    after = LeaveLastTwo().apply(interactions(marked), seed)
    assert after.training.equals(before.training)
