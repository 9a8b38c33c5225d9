"""Tests and intervals against scipy, hand-computed corrections, and what they promise on simulated data."""

import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reaemb_bench.core.artifacts import Float64, Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.evaluation.metrics import ndcg
from reaemb_bench.evaluation.significance import (
    RESAMPLES,
    Comparison,
    MethodValues,
    bootstrap_interval,
    compare,
    detectable_difference,
    holm,
    method_values,
    randomisation_p,
)

NDCG = partial(ndcg, k=10)

Draw = Callable[[np.random.Generator, int], Float64]


def method(name: str, values: Float64) -> MethodValues:
    users = np.arange(len(values), dtype=np.int64)
    return MethodValues(name, users, (users % 7).astype(np.int32), values)


def ndcg_like(rng: np.random.Generator, users: int) -> Float64:
    """Mostly zeros, now and then the gain of a place among ten."""
    hit = rng.random(users) < 0.2
    return np.where(hit, 1 / np.log2(rng.integers(10, size=users) + 2.0), 0.0)


def ndcg_gaps(rng: np.random.Generator, users: int) -> Float64:
    return ndcg_like(rng, users) - ndcg_like(rng, users)


def heavy_gaps(rng: np.random.Generator, users: int) -> Float64:
    return rng.standard_t(2.5, size=users)


def skewed_gaps(rng: np.random.Generator, users: int) -> Float64:
    return rng.exponential(size=users) - 1.0


def ranks(places: list[int]) -> Ranks:
    count = len(places)
    zeros = np.zeros(count, dtype=np.int64)
    users = np.arange(count, dtype=np.int64)
    better = np.array(places, dtype=np.int64)
    return Ranks(users, users.astype(np.int32), better, zeros, better, zeros, zeros, zeros, zeros + 99)


@pytest.mark.parametrize("draw", [ndcg_gaps, heavy_gaps])
@pytest.mark.parametrize("shift", [0.0, 0.04, 0.08])
def test_the_p_value_is_scipys_within_monte_carlo_error(draw: Draw, shift: float) -> None:
    gaps = draw(np.random.default_rng(3), 150)
    gaps = gaps + shift * (gaps != 0)
    theirs = stats.permutation_test(
        (gaps,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=np.random.default_rng(8)
    ).pvalue
    ours = randomisation_p(gaps)
    assert ours == pytest.approx(theirs, abs=5 * np.sqrt(2 * theirs * (1 - theirs) / RESAMPLES) + 1e-4)


def test_the_p_value_is_exact_where_signs_can_be_counted() -> None:
    # The 16 signings of 1, 2, 4, 8 sum to all odd numbers from -15 to 15, of which ten are as far from 0 as 7.
    gaps = np.array([1.0, 2.0, -4.0, 8.0, 0.0, 0.0]) * 0.1
    exact = 10 / 16
    assert randomisation_p(gaps, resamples=40_000) == pytest.approx(exact, abs=5 * np.sqrt(exact / 40_000))


@pytest.mark.parametrize("draw", [ndcg_gaps, ndcg_like, heavy_gaps, skewed_gaps])
def test_the_interval_is_scipys_within_monte_carlo_error(draw: Draw) -> None:
    gaps = draw(np.random.default_rng(4), 200)
    theirs = stats.bootstrap(
        (gaps,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(9)
    ).confidence_interval
    # The standard error of a 2.5 % quantile of 9,999 draws is about .027 standard deviations of the mean.
    error = 5 * np.sqrt(2) * 0.027 * gaps.std() / np.sqrt(len(gaps))
    assert bootstrap_interval(gaps) == pytest.approx((theirs.low, theirs.high), abs=error)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx((0.06, 0.03, 0.06, 0.02))
    assert holm([0.02, 0.7]) == pytest.approx((0.04, 0.7))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.01, 0.02], family=6) == pytest.approx((0.06, 0.1))
    assert holm([0.01, 0.02, 0.5], family=2) == pytest.approx((0.03, 0.04, 0.5))


@given(st.lists(st.floats(0, 1), max_size=8), st.integers(0, 12))
def test_holm_keeps_the_order_never_makes_smaller_and_is_below_bonferroni(p: list[float], family: int) -> None:
    adjusted = holm(p, family)
    size = max(len(p), family)
    assert all(one <= other <= min(1.0, size * one) for one, other in zip(p, adjusted, strict=True))
    ordered = [adjusted[place] for place in np.argsort(p, kind="stable")]
    assert ordered == sorted(ordered)


def test_what_stands_beside_a_family_counts_as_not_shown() -> None:
    assert holm([0.01, 0.02], family=4) == holm([0.01, 0.02, 1.0, 1.0])[:2]


def rejected(draw: Draw, users: int, repeats: int) -> int:
    rng = np.random.default_rng(12)
    return sum(randomisation_p(draw(rng, users), resamples=499, seed=each) <= 0.05 for each in range(repeats))


@pytest.mark.parametrize(("draw", "users"), [(ndcg_gaps, 300), (heavy_gaps, 80), (ndcg_gaps, 40)])
def test_of_simulated_nulls_one_in_twenty_is_rejected(draw: Draw, users: int) -> None:
    low, high = stats.binom.interval(0.999, 600, 0.05)
    assert low <= rejected(draw, users, 600) <= high


@pytest.mark.slow
@pytest.mark.parametrize("draw", [ndcg_gaps, heavy_gaps, skewed_gaps])
def test_the_interval_covers_the_true_mean_19_times_in_20(draw: Draw) -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for each in range(600):
        low, high = bootstrap_interval(draw(rng, 300), resamples=499, seed=each)
        covered += low <= 0 <= high
    # Quantiles of 499 draws and heavy tails cost the percentile interval about a point.
    low, high = stats.binom.interval(0.999, 600, 0.94)
    assert low <= covered <= high


def test_a_true_difference_of_the_detectable_size_is_shown_four_times_in_five() -> None:
    rng = np.random.default_rng(7)
    shown = 0
    for each in range(400):
        gaps = rng.normal(size=200)
        gaps += detectable_difference(rng.normal(size=20_000)) * np.sqrt(20_000 / 200)
        shown += randomisation_p(gaps, resamples=499, seed=each) <= 0.05
    low, high = stats.binom.interval(0.999, 400, 0.8)
    assert low <= shown <= high


def test_the_detectable_difference_by_hand() -> None:
    gaps = np.array([0.0, 1.0] * 50)
    assert detectable_difference(gaps) == pytest.approx((1.959964 + 0.841621) * gaps.std(ddof=1) / 10, rel=1e-6)


def one(first: Float64, second: Float64, seed: int = 0) -> Comparison:
    (made,) = compare([(method("a", first), method("b", second))], "NDCG@10", seed=seed)
    return made


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_other_way_round_only_signs_differ(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = ndcg_like(rng, 90), ndcg_like(rng, 90)
    there, back = one(first, second), one(second, first)
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert (back.p, back.detectable) == pytest.approx((there.p, there.detectable))
    assert there.low <= there.difference <= there.high


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_users_changes_no_more_than_another_seed_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = ndcg_like(rng, 90), ndcg_like(rng, 90)
    order = rng.permutation(90)
    straight, shuffled = one(first, second), one(first[order], second[order])
    assert shuffled.difference == pytest.approx(straight.difference)
    assert shuffled.detectable == pytest.approx(straight.detectable)
    assert shuffled.p == pytest.approx(straight.p, abs=6 * np.sqrt(2 * 0.25 / RESAMPLES))
    width = straight.high - straight.low
    assert (shuffled.low, shuffled.high) == pytest.approx((straight.low, straight.high), abs=0.06 * width + 1e-12)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    rng = np.random.default_rng(1)
    first, second = ndcg_like(rng, 200), ndcg_like(rng, 200)
    assert one(first, second, seed=3) == one(first, second, seed=3)
    assert one(first, second, seed=3).p != one(first, second, seed=4).p


def test_a_scale_changes_no_p_value() -> None:
    gaps = ndcg_gaps(np.random.default_rng(2), 150)
    assert {randomisation_p(gaps * scale) for scale in (1e-9, 0.1, 3.0, 1e9)} == {randomisation_p(gaps)}


def test_no_difference_at_all_is_never_shown() -> None:
    same = ndcg_like(np.random.default_rng(5), 50)
    made = one(same, same)
    assert (made.difference, made.low, made.high, made.p, made.detectable) == (0.0, 0.0, 0.0, 1.0, 0.0)
    assert not made.shown


def test_the_least_p_value_is_one_over_all_draws() -> None:
    made = one(np.ones(200), np.zeros(200))
    assert made.p == 1 / (RESAMPLES + 1)
    assert (made.difference, made.low, made.high) == (1.0, 1.0, 1.0)
    assert made.shown


def test_a_user_with_several_seeds_has_the_mean_of_them() -> None:
    seeds = [ranks([0, 3, 20]), ranks([1, 20, 20])]
    made = method_values("a", seeds, NDCG)
    assert made.values == pytest.approx([(1 + 1 / np.log2(3)) / 2, 1 / np.log2(5) / 2, 0.0])
    assert made.mean == pytest.approx(made.values.sum() / 3)


def test_the_correction_speaks_of_its_family_and_leaves_the_rest_alone() -> None:
    rng = np.random.default_rng(11)
    methods = [method(name, ndcg_like(rng, 400) + shift) for name, shift in (("a", 0.1), ("b", 0.05), ("c", 0.0))]
    pairs = [(methods[0], methods[1]), (methods[0], methods[2])]
    alone = [compare([pair], "NDCG@10")[0] for pair in pairs]
    together = compare(pairs, "NDCG@10", family=5)
    assert [each.p for each in together] == [each.p for each in alone]
    assert tuple(each.adjusted_p for each in together) == holm([each.p for each in alone], 5)
    assert {each.family for each in together} == {5}
    assert {each.family for each in alone} == {1}


@pytest.mark.parametrize("field", ["users", "targets"])
def test_other_users_or_targets_are_refused(field: str) -> None:
    first = method("ours", np.ones(4))
    second = MethodValues(**{**vars(method("theirs", np.ones(4))), field: getattr(first, field)[::-1]})
    with pytest.raises(UserError, match=r"'ours' and 'theirs' rank different users or targets"):
        compare([(first, second)], "NDCG@10")
    with pytest.raises(UserError, match="different users or targets"):
        method_values("ours", [ranks([0, 1, 2]), ranks([0, 1, 2, 3])], NDCG)


def test_one_user_is_no_sample() -> None:
    with pytest.raises(UserError, match="fewer than two users"):
        compare([(method("a", np.ones(1)), method("b", np.ones(1)))], "NDCG@10")


def test_draws_are_made_in_parts_that_fit_memory() -> None:
    # All draws at once would take 40 MB as booleans and eight times that as numbers.
    gaps = heavy_gaps(np.random.default_rng(2), 400_000)
    tracemalloc.start()
    randomisation_p(gaps, resamples=100)
    bootstrap_interval(gaps, resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


def test_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = ndcg_gaps(np.random.default_rng(2), 400)
    whole = randomisation_p(gaps), bootstrap_interval(gaps)
    monkeypatch.setattr("reaemb_bench.evaluation.significance._CELLS", 5_000)
    parts = randomisation_p(gaps), bootstrap_interval(gaps)
    assert parts[0] == pytest.approx(whole[0], abs=0.03)
    assert parts[1] == pytest.approx(whole[1], abs=0.05 * (whole[1][1] - whole[1][0]))
