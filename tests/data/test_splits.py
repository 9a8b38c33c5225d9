"""What a split may and may not do: against its definition, and for any held-out rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from random import Random
from typing import Any, Literal

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reaemb_bench.core.artifacts import Corpus, TestTargets, ValidationTargets
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.interactions import Interactions, SplitInteractions
from reaemb_bench.data.prepare import Prepare
from reaemb_bench.data.splits import ColdItems, LeaveLastOne, LeaveLastTwo, Temporal

Rows = list[tuple[str, str, int, float | None]]
SCHEMA = {"user": polars.String, "item": polars.String, "timestamp": polars.Int64, "rating": polars.Float64}
START = 1_600_000_000

rows = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdef"), st.integers(0, 3), st.none()), max_size=40
)
timed_rows = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdef"), st.integers(START, START + 12), st.none()),
    min_size=1,
    max_size=40,
)
temporal = st.builds(
    Temporal,
    validation_from=st.sampled_from([0.3, 0.6]),
    test_from=st.sampled_from([0.7, 0.9]),
    target=st.sampled_from(["last", "first"]),
)


def interactions(data: Rows) -> Interactions:
    return Interactions("shop", polars.DataFrame(data, schema=SCHEMA, orient="row"), {}, "")


def parts(divided: SplitInteractions) -> list[polars.DataFrame]:
    return [
        divided.training,
        divided.validation,
        divided.test,
        divided.between,
        divided.after,
        divided.gap,
        divided.dropped,
    ]


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(0, 5))
def test_leave_last_two(data: Rows, seed: int) -> None:
    divided = LeaveLastTwo().apply(interactions(data), seed)
    assert sorted((row for part in parts(divided) for row in part.rows()), key=repr) == sorted(data, key=repr)
    owned = Counter(row[0] for row in data)
    long = {user for user, count in owned.items() if count >= 3}
    assert sorted(divided.test["user"]) == sorted(divided.validation["user"]) == sorted(long)
    validated, tested = (
        dict(zip(part["user"], part["timestamp"], strict=True)) for part in (divided.validation, divided.test)
    )
    for user in owned:
        learned = divided.training.filter(user=user)["timestamp"].to_list()
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
    exchange_items(marked, [before.validation, before.test], chance)
    after = LeaveLastTwo().apply(interactions(marked), seed)
    assert after.training.equals(before.training)


def exchange_items(marked: Rows, parts: list[polars.DataFrame], chance: Random) -> None:
    """Give the items of each part to other rows of that part; ratings say which rows these are."""
    for part in parts:
        places = [int(place) for place in part["rating"]]
        items = [marked[place][1] for place in places]
        chance.shuffle(items)
        for place, item in zip(places, items, strict=True):
            marked[place] = (marked[place][0], item, *marked[place][2:])


@settings(max_examples=100, deadline=None)
@given(timed_rows, temporal, st.integers(0, 5))
def test_temporal_training_ends_before_all_that_is_tuned_on_and_judged(data: Rows, split: Temporal, seed: int) -> None:
    divided = split.apply(interactions(data), seed)
    times = sorted(row[2] for row in data)
    first, second = (times[int(share * len(times))] for share in (split.validation_from, split.test_from))
    assert sorted((row for part in parts(divided) for row in part.rows()), key=repr) == sorted(data, key=repr)
    assert sorted(divided.training.rows(), key=repr) == sorted((row for row in data if row[2] < first), key=repr)
    assert all(first <= time < second for time in [*divided.validation["timestamp"]])
    assert all(time >= second for time in divided.test["timestamp"])
    trained, tested = set(divided.training["user"]), set(divided.test["user"])
    for user in "uvwxyz":
        own = sorted(row[2] for row in data if row[0] == user)
        later = [time for time in own if time >= second]
        window = [time for time in own if first <= time < second]
        assert divided.validation.filter(user=user)["timestamp"].to_list() == (window[:1] if user in trained else [])
        history = history_of(divided, user)
        assert history == sorted(history)
        if user in tested:
            target = divided.test.filter(user=user)["timestamp"].to_list()
            assert target == [later[-1] if split.target == "last" else later[0]]
            assert history == own[: len(history)]
            assert len(own) - len(history) == (1 if split.target == "last" else len(later))
            assert history
        else:
            # Either there is nothing to ask for or nothing to ask from.
            assert not later or not history


def history_of(divided: SplitInteractions, user: str) -> list[int]:
    return [
        time
        for part in (divided.training, divided.validation, divided.between)
        for time in part.filter(user=user)["timestamp"]
    ]


@settings(max_examples=60, deadline=None)
@given(timed_rows, temporal, st.integers(0, 5), st.randoms(use_true_random=False))
def test_exchanged_items_after_the_first_point_move_no_training_row(
    data: Rows, split: Temporal, seed: int, chance: Random
) -> None:
    marked: Rows = [(user, item, time, float(place)) for place, (user, item, time, _) in enumerate(data)]
    before = split.apply(interactions(marked), seed)
    exchange_items(marked, parts(before)[1:], chance)
    assert split.apply(interactions(marked), seed).training.equals(before.training)


def test_times_that_tie_are_drawn_and_the_seed_decides() -> None:
    seen: Rows = [("u", "z", START, None)] * 9
    data = interactions([*seen, *(("u", item, START + 1, None) for item in "abcdefgh")])
    split = Temporal(validation_from=0.2, test_from=0.55)
    last = [split.apply(data, seed).test["item"][0] for seed in range(40)]
    assert len(set(last)) > 4
    assert last == [split.apply(data, seed).test["item"][0] for seed in range(40)]


def test_positions_cannot_be_split_by_time_and_points_have_an_order() -> None:
    with pytest.raises(UserError, match="shop has positions, not times") as caught:
        Temporal().apply(interactions([("u", "a", 0, None), ("u", "b", 1, None)]), 0)
    assert "leave-last-two" in str(caught.value)
    with pytest.raises(ValidationError, match=r"validation_from = 0.9 must lie below test_from = 0.9"):
        Temporal(validation_from=0.9)


SHOP: Rows = [
    ("old", "a", 0, None),
    ("old", "b", 1, None),
    ("old", "a", 2, None),
    ("old", "c", 5, None),
    ("old", "d", 6, None),
    ("old", "new", 8, None),
    ("old", "a", 9, None),
    ("late", "b", 5, None),
    ("late", "c", 9, None),
    ("once", "a", 9, None),
    ("gone", "a", 1, None),
    ("gone", "b", 6, None),
]
"""With points at 5 and 8: `old` trains on three, `late` never trains, `once` has no history, `gone` no target."""


POINTS: dict[str, Any] = {"use": "temporal", "validation_from": 0.34, "test_from": 0.67}


def prepared(
    folder: Path, data: Rows, split: dict[str, Any]
) -> tuple[Corpus, ValidationTargets, TestTargets, dict[str, Any]]:
    frame = polars.DataFrame(data, schema=SCHEMA, orient="row").with_columns(polars.col("timestamp") + START)
    frame.drop("rating").write_csv(folder / "rows.csv")
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"{item},{item}\n" for item in "abcde"))
    table = {"use": "table", "interactions": folder / "rows.csv", "items": folder / "items.csv", "name": "shop"}
    source = {**table, "user": "user", "item": "item"}
    step = build("step", {"use": "prepare", "source": source, "split": split, "sampled_candidates": 1})
    assert isinstance(step, Prepare)
    facts: dict[str, Any] = {}
    return *step.run(Context(1, Machine(), lambda tick: None, facts.update, folder)), facts


def keys(corpus: Corpus, items: Iterable[int]) -> list[str]:
    return [corpus.item_keys[item] for item in items]


@pytest.mark.parametrize(
    ("target", "history", "wanted", "cold"),
    [("last", ["a", "b", "a", "c", "d", "new"], "a", 1), ("first", ["a", "b", "a", "c", "d"], "new", 2)],
)
def test_the_history_before_a_temporal_target_holds_what_nothing_was_learned_from(
    tmp_path: Path, target: Literal["last", "first"], history: list[str], wanted: str, cold: int
) -> None:
    corpus, validation_targets, test_targets, facts = prepared(tmp_path, SHOP, {**POINTS, "target": target})
    users = {key: number for number, key in enumerate(corpus.user_keys)}
    assert keys(corpus, corpus.training.items) == ["a", "a", "b", "a"]
    assert keys(corpus, corpus.training.of(users["old"])) == ["a", "b", "a"]
    assert [corpus.user_keys[user] for user in validation_targets.users] == ["gone", "old"]
    assert keys(corpus, validation_targets.targets) == ["b", "c"]
    assert [corpus.user_keys[user] for user in test_targets.users] == ["late", "old"]
    assert keys(corpus, test_targets.targets) == ["c", wanted]
    assert keys(corpus, test_targets.histories.of(users["old"])) == history
    assert keys(corpus, test_targets.histories.of(users["late"])) == ["b"]
    assert facts["test_users_without_training"] == facts["test_users_without_history"] == 1
    assert facts["users_without_training"] == 2
    # `c`, `d` and `new` were only bought after the first point.
    assert facts["items_without_training"] == 3
    assert (facts["warm_test_targets"], facts["cold_test_targets"]) == (2 - cold, cold)
    bought = {"old": {"a", "b", "c", "d", "new"}, "late": {"b", "c"}}
    for user, drawn in zip(test_targets.users, test_targets.candidates, strict=True):
        assert not {*keys(corpus, drawn)} & bought[corpus.user_keys[user]]


def test_exchanged_held_out_items_leave_a_temporal_corpus_byte_for_byte(tmp_path: Path) -> None:
    exchange = {"a": "c", "c": "a"}
    written = []
    for place, others in enumerate(({}, exchange)):
        data: Rows = [(user, others.get(item, item) if time >= 5 else item, time, None) for user, item, time, _ in SHOP]
        folder = tmp_path / str(place)
        folder.mkdir()
        corpus, _, test_targets, _ = prepared(folder, data, POINTS)
        for part in (corpus, test_targets):
            (folder / type(part).__name__).mkdir()
            part.save(folder / type(part).__name__)
        written.append({file.name: file.read_bytes() for file in folder.glob("*/*")})
    held_out = "test_targets.safetensors"
    assert written[0].pop(held_out) != written[1].pop(held_out)
    assert {*written[0]} == {"training.safetensors", "corpus.json"}
    assert written[0] == written[1]


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 9), st.integers(0, 5))
def test_leave_last_one_with_validation_users(data: Rows, wanted: int, seed: int) -> None:
    split = LeaveLastOne(validation_users=wanted).apply(interactions(data), seed)
    assert sorted((row for part in parts(split) for row in part.rows()), key=repr) == sorted(data, key=repr)
    owned = Counter(row[0] for row in data)
    assert sorted(split.test["user"]) == sorted(user for user, count in owned.items() if count > 1)
    validated = split.validation["user"].to_list()
    assert len(set(validated)) == len(validated) == min(wanted, sum(count > 2 for count in owned.values()))
    assert len(split.training) == len(data) - len(split.test) - len(validated)
    for user in split.test["user"]:
        history = history_of(split, user)
        assert history == sorted(history)
        assert history[-1] <= split.test.filter(user=user)["timestamp"][0]


def test_validation_users_are_drawn_by_the_seed_and_not_by_the_order_of_rows() -> None:
    data: Rows = [(f"u{user}", "abc"[place], place, None) for user in range(30) for place in range(3)]
    drawn = [
        {*LeaveLastOne(validation_users=10).apply(interactions(order), seed).validation["user"]}
        for order, seed in ((data, 1), (data[::-1], 1), (data, 2))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@settings(max_examples=100, deadline=None)
@given(rows, st.sampled_from([0.2, 0.5]), st.integers(0, 5), st.randoms(use_true_random=False))
def test_cold_items_are_never_trained_on_and_every_target_is_one(
    data: Rows, share: float, seed: int, chance: Random
) -> None:
    marked: Rows = [(user, item, time, float(place)) for place, (user, item, time, _) in enumerate(data)]
    split = ColdItems(share=share).apply(interactions(marked), seed)
    assert sorted((row for part in parts(split) for row in part.rows()), key=repr) == sorted(marked, key=repr)
    warm = {*split.training["item"], *split.validation["item"]}
    cold = {*split.test["item"], *split.dropped["item"]}
    assert not warm & cold
    assert len(cold) <= max(1, round(share * len({row[1] for row in data})))
    assert {*split.validation["user"], *split.test["user"]} <= {*split.training["user"]}
    for user in {row[0] for row in data}:
        history = history_of(split, user)
        assert history == sorted(history)
        for time in split.test.filter(user=user)["timestamp"]:
            assert all(before <= time for before in history)
            assert all(later >= time for later in split.after.filter(user=user)["timestamp"])
    # Exchanged items of any held-out part leave the rows that train as they are.
    exchange_items(marked, [split.validation, split.test, split.after], chance)
    assert ColdItems(share=share).apply(interactions(marked), seed).training.equals(split.training)


DAY = 86_400


def moments(text: str) -> Rows:
    """Rows such as `u a0 b3`: a user, then items at days since START."""
    return [
        (user, word[0], START + int(word[1:]) * DAY, None)
        for user, *words in (line.split() for line in text.split("; "))
        for word in words
    ]


def days(part: polars.DataFrame) -> list[str]:
    # In no order of users: a split promises only that each one's rows are together.
    return sorted(f"{user} {item}{(time - START) // DAY}" for user, item, time, _ in part.rows())


def test_dates_divide_as_shares_do_and_a_gap_trains_nothing_but_is_history() -> None:
    # START is 2020-09-13 12:26:40.
    data = interactions(moments("u a0 b8 c11 d15 e21; v a1 b12 c30; w a9 b22; x a13 b16"))
    dates: dict[str, Any] = {"validation_from": "2020-09-24", "test_from": "2020-10-03"}
    split = Temporal(**dates).apply(data, 0)
    assert days(split.training) == ["u a0", "u b8", "v a1", "w a9"]
    assert days(split.validation) == ["u c11", "v b12"]
    assert days(split.between) == ["u d15", "x a13", "x b16"]
    assert days(split.test) == ["u e21", "v c30", "w b22"]
    split = Temporal(**dates, gap_days=4).apply(data, 0)
    assert days(split.training) == ["u a0", "v a1"]
    assert days(split.gap) == ["u b8", "w a9"]
    assert days(split.validation) == ["u c11", "v b12"]
    assert days(split.test) == ["u e21", "v c30", "w b22"]
    with pytest.raises(UserError, match="leaves no time for validation"):
        Temporal(**dates, gap_days=10).apply(data, 0)


def test_a_cold_target_is_the_first_item_that_training_does_not_know() -> None:
    data = interactions(moments("u a0 b1 a20 c21 d22; v a1 a20 b21; w c9 d30; x c25 d26"))
    split = Temporal(validation_from="2020-09-20", test_from="2020-09-30", target="cold").apply(data, 0)
    assert days(split.training) == ["u a0", "u b1", "v a1"]
    assert days(split.test) == ["u c21", "w d30", "x d26"]
    assert days(split.between) == ["u a20", "w c9", "x c25"]
    assert days(split.after) == ["u d22", "v a20", "v b21"]


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ({"validation_from": "2020-10-01", "test_from": "2020-09-01"}, "must lie below test_from = 2020-09-01"),
        ({"validation_from": "Monday"}, "give a share between 0 and 1, or a date"),
        ({"test_from": 1.0}, "give a share between 0 and 1, or a date"),
        ({"test_from": 2}, "give a share between 0 and 1, or a date"),
    ],
)
def test_points_are_shares_or_dates_in_order(points: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Temporal(**points)


def test_a_date_of_toml_is_kept_as_text() -> None:
    split = build("split", {"use": "temporal", "validation_from": date(2018, 6, 1), "test_from": "2018-09-01"})
    assert split.spec()["validation_from"] == "2018-06-01"
    assert build("split", split.spec()) == split


def test_a_gap_lies_between_training_and_validation_in_the_history_of_a_target(tmp_path: Path) -> None:
    data = moments("u a0 b8 c11 d15 e21; v a1 b12 c30")
    shifted: Rows = [(user, item, time - START, None) for user, item, time, _ in data]
    split = {"use": "temporal", "validation_from": "2020-09-24", "test_from": "2020-10-03", "gap_days": 4}
    corpus, validation_targets, test_targets, _ = prepared(tmp_path, shifted, split)
    assert keys(corpus, corpus.training.of(0)) == ["a"]
    assert keys(corpus, validation_targets.targets) == ["c", "b"]
    assert keys(corpus, test_targets.histories.of(0)) == ["a", "b", "c", "d"]


def test_a_date_outside_the_data_is_refused_with_the_days_that_they_have(tmp_path: Path) -> None:
    data: Rows = [("u", "a", 0, None), ("u", "b", DAY, None), ("u", "c", 2 * DAY, None)]
    for first, second, missing in (("1999-01-01", "2020-09-14", "training"), ("2020-09-14", "2030-01-01", "test")):
        split = {"use": "temporal", "validation_from": first, "test_from": second}
        with pytest.raises(
            UserError, match=f"no user has a {missing} interaction .times reach from 2020-09-13 to 2020-09-15"
        ):
            prepared(tmp_path, data, split)
