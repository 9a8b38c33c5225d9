"""Groups by training counts, their metrics against released numbers, and curves."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.evaluation.groups import quantile_bins, quantile_groups, user_groups
from reaemb_bench.evaluation.summary import over_seeds, summarise

RELEASED = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "fidelity" / "metrics.json").read_text(encoding="utf-8")
)


def released_ranks() -> Ranks:
    places = np.array(RELEASED["ranks"])
    targets = np.array(RELEASED["target_item"], dtype=np.int32)
    none = np.zeros_like(places)
    popularity = np.array(RELEASED["item_popularity"]).astype(np.int64)[targets]
    history = np.array(RELEASED["history_length"])
    return Ranks(np.arange(len(places)), targets, places, none, places, none, popularity, history, none + 101)


@pytest.mark.parametrize("protocol", ["full", "sampled"])
def test_the_released_codes_groups_with_its_skipped_user_put_back(protocol: str) -> None:
    summary = summarise(released_ranks(), tail=RELEASED["ts_item"], short=RELEASED["ts_user"])
    by_item, by_user = RELEASED["item_groups_all_users"], RELEASED["user_groups"]
    for metric in ("HR@10", "NDCG@10"):
        name = f"{protocol}/{metric.lower()}"
        assert summary[f"{name}/tail"] == pytest.approx(by_item["tail"][metric], abs=1e-12)
        assert summary[f"{name}/head"] == pytest.approx(by_item["head"][metric], abs=1e-12)
        assert summary[f"{name}/short"] == pytest.approx(by_user[f"Short {metric}"], abs=1e-12)
        assert summary[f"{name}/long"] == pytest.approx(by_user[f"Long {metric}"], abs=1e-12)
        assert summary[name] == pytest.approx(RELEASED["overall"][metric], abs=1e-12)


def test_thresholds_and_cold_targets_apart() -> None:
    inside = user_groups(np.array([0, 1, 19, 20]), np.array([0, 9, 10, 11]))
    assert inside["cold"].tolist() == [True, False, False, False]
    assert inside["tail"].tolist() == [False, True, True, False]
    assert inside["head"].tolist() == [False, False, False, True]
    assert inside["short"].tolist() == [True, True, False, False]
    assert inside["long"].tolist() == [False, False, True, True]
    moved = user_groups(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 3]), tail=2, short=3)
    assert moved["tail"].tolist() == [False, True, False, False]
    assert moved["long"].tolist() == [False, False, False, True]


def test_an_empty_group_is_absent_and_its_size_is_0() -> None:
    summary = summarise(released_ranks())
    assert summary["users/cold"] == 0
    assert not [name for name in summary if name.endswith("/cold") and not name.startswith("users")]
    assert summary["users/tail"] + summary["users/head"] == summary["users"] == 500


def test_group_means_weighted_by_size_are_the_overall_mean() -> None:
    summary = summarise(released_ranks())
    for parts in (("tail", "head"), ("short", "long")):
        for metric in ("hr@5", "ndcg@20", "mrr"):
            weighted = sum(summary[f"full/{metric}/{part}"] * summary[f"users/{part}"] for part in parts)
            assert weighted / summary["users"] == pytest.approx(summary[f"full/{metric}"])


def test_users_without_candidates_have_no_sampled_metrics() -> None:
    ranks = released_ranks()
    alone = Ranks(**{**vars(ranks), "sampled_better": np.full(500, -1)})
    assert not [name for name in summarise(alone) if name.startswith("sampled")]
    assert summarise(alone)["full/mrr"] == summarise(ranks)["full/mrr"]


def test_no_users_have_no_metrics() -> None:
    nobody = Ranks(**{name: array[:0] for name, array in vars(released_ranks()).items()})
    assert set(summarise(nobody).values()) == {0.0}
    assert all(name.startswith("users") for name in summarise(nobody))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 6))
def test_quantile_groups_rise_with_the_value_and_keep_equal_values_together(values: list[int], count: int) -> None:
    numbers = np.array(values)
    place = quantile_groups(numbers, count)
    assert place.min() == 0
    assert place.max() < count
    order = np.argsort(numbers, kind="stable")
    assert (np.diff(place[order]) >= 0).all()
    assert all(len(set(place[numbers == value].tolist())) == 1 for value in set(values))


def test_quantile_groups_of_distinct_values_are_equal_in_size() -> None:
    values = np.random.default_rng(1).permutation(100)
    assert np.bincount(quantile_groups(values, 5)).tolist() == [20] * 5


def test_bins_have_their_bounds_and_cold_targets_are_in_none_by_popularity() -> None:
    popularity = np.array([5, 1, 0, 2, 3, 4, 6, 7, 0, 8, 9, 10])
    bins = quantile_bins(popularity, np.full(12, 3), 5)
    assert [(name, each.low, each.high, int(each.members.sum())) for name, each in bins.items()] == [
        ("popularity-q1", 1, 2, 2),
        ("popularity-q2", 3, 4, 2),
        ("popularity-q3", 5, 6, 2),
        ("popularity-q4", 7, 8, 2),
        ("popularity-q5", 9, 10, 2),
        ("history-q1", 3, 3, 12),
    ]
    assert bins["popularity-q1"].members.tolist() == [value in (1, 2) for value in popularity]


@pytest.mark.parametrize("by", ["popularity", "history"])
def test_a_curve_of_released_ranks_keeps_everybody(by: str) -> None:
    ranks = released_ranks()
    summary = summarise(ranks, (10,), bins=7)
    points = [name.split("/")[1] for name in summary if name.startswith(f"users/{by}-q")]
    assert 4 <= len(points) <= 7
    assert sum(summary[f"users/{point}"] for point in points) == 500
    weighted = sum(summary[f"users/{point}"] * summary[f"full/hr@10/{point}"] for point in points)
    assert weighted / 500 == pytest.approx(summary["full/hr@10"])
    bounds = [(summary[f"low/{point}"], summary[f"high/{point}"]) for point in points]
    values = getattr(ranks, by)
    assert (bounds[0][0], bounds[-1][1]) == (values.min(), values.max())
    assert all(low <= high for low, high in bounds)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(bounds))


def test_spread_over_seeds() -> None:
    spread = over_seeds([{"a": 1.0, "b": 2.0}, {"a": 2.0}, {"a": 3.0, "b": 1.0}])
    assert set(spread) == {"a"}
    assert (spread["a"].mean, spread["a"].sd) == (2.0, 1.0)
    assert over_seeds([{"a": 1.0}])["a"].sd is None
