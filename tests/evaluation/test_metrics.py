"""Metrics: released numbers, an independent implementation, and ties as the mean over all orders."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG

from reaemb_bench.core.artifacts import Float64, Int64
from reaemb_bench.evaluation.metrics import hit_rate, ndcg, reciprocal_rank

RELEASED = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "fidelity" / "metrics.json").read_text(encoding="utf-8")
)

Metric = Callable[[Int64, Int64], Float64]


def test_the_released_codes_overall_numbers() -> None:
    ranks = np.array(RELEASED["ranks"])
    tied = np.zeros_like(ranks)
    assert hit_rate(ranks, tied, 10).mean() == pytest.approx(RELEASED["overall"]["HR@10"], abs=1e-12)
    assert ndcg(ranks, tied, 10).mean() == pytest.approx(RELEASED["overall"]["NDCG@10"], abs=1e-12)


def test_an_independent_implementation_agrees_without_ties() -> None:
    rng = np.random.default_rng(5)
    users, items = 40, 60
    scores = rng.permuted(np.tile(np.arange(items), (users, 1)), axis=1)
    targets = rng.integers(items, size=users)
    better = (scores > scores[np.arange(users), targets][:, None]).sum(axis=1)
    tied = np.zeros(users, dtype=np.int64)
    qrels = {str(user): {str(targets[user]): 1} for user in range(users)}
    run = {str(user): {str(item): float(scores[user, item]) for item in range(items)} for user in range(users)}
    ours = {
        nDCG @ 10: ndcg(better, tied, 10),
        Success @ 10: hit_rate(better, tied, 10),
        RR: reciprocal_rank(better, tied),
        RR @ 10: reciprocal_rank(better, tied, 10),
    }
    seen = 0
    for each in ir_measures.iter_calc(list(ours), qrels, run):
        assert ours[each.measure][int(each.query_id)] == pytest.approx(each.value, abs=1e-9), each.measure
        seen += 1
    assert seen == users * len(ours)


METRICS: dict[str, tuple[Metric, Callable[[int], float]]] = {
    "hr@3": (lambda better, tied: hit_rate(better, tied, 3), lambda place: float(place < 3)),
    "ndcg@3": (lambda better, tied: ndcg(better, tied, 3), lambda place: (place < 3) / math.log2(place + 2)),
    "mrr": (reciprocal_rank, lambda place: 1 / (place + 1)),
    "mrr@2": (lambda better, tied: reciprocal_rank(better, tied, 2), lambda place: (place < 2) / (place + 1)),
}


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=60, deadline=None)
@given(scores=st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_ties_are_the_mean_over_all_orders(name: str, scores: list[int]) -> None:
    metric, at_place = METRICS[name]
    better = np.array([sum(score > scores[0] for score in scores)])
    tied = np.array([sum(score == scores[0] for score in scores) - 1])
    orders = list(itertools.permutations(range(len(scores))))
    # A stable sort breaks ties by the order that the items came in; item 0 is the target.
    places = [sorted(order, key=lambda item: -scores[item]).index(0) for order in orders]
    expected = sum(at_place(place) for place in places) / len(orders)
    assert metric(better, tied)[0] == pytest.approx(expected, abs=1e-12)


def test_an_oracle_gets_1_and_the_last_place_nothing() -> None:
    first, none = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    for k in (1, 5, 10):
        for metric in (hit_rate, ndcg, reciprocal_rank):
            assert metric(first, none, k).tolist() == [1.0, 1.0, 1.0]
            assert metric(first + k, none, k).tolist() == [0.0, 0.0, 0.0]
    assert reciprocal_rank(first, none).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("items", [7, 10, 101, 3000])
def test_a_constant_scorer_gets_what_chance_gets(items: int) -> None:
    better, tied = np.array([0]), np.array([items - 1])
    gains = 1 / np.log2(np.arange(min(10, items)) + 2)
    assert hit_rate(better, tied, 10)[0] == pytest.approx(min(10, items) / items)
    assert ndcg(better, tied, 10)[0] == pytest.approx(gains.sum() / items)
    assert reciprocal_rank(better, tied)[0] == pytest.approx((1 / np.arange(1, items + 1)).mean())


def test_no_users_give_no_values() -> None:
    empty = np.zeros(0, dtype=np.int64)
    assert len(hit_rate(empty, empty, 10)) == len(ndcg(empty, empty, 10)) == len(reciprocal_rank(empty, empty)) == 0
