"""Co-occurrence counts and candidate lists against their definitions."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from reaemb_bench.core.artifacts import Corpus, Encoder, Sequences, TestTargets
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.cooccurrence import DistanceDecay, WholeHistory, Window, checked, cooccurrence
from reaemb_bench.rl.candidates import draw_candidates
from reaemb_bench.rl.crrl import Reinforce, ReinforceLeakyPaper

ITEMS = 9
HISTORIES = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=7), min_size=1, max_size=8)


def sequences(histories: list[list[int]]) -> Sequences:
    offsets = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    return Sequences(np.array([item for history in histories for item in history], dtype=np.int32), offsets)


def counted(histories: list[list[int]], weight: Callable[[int], float] = lambda distance: 1) -> np.ndarray:
    counts = np.zeros((ITEMS, ITEMS))
    for history in histories:
        for (here, first), (there, second) in combinations(enumerate(history), 2):
            if first != second:
                counts[first, second] += weight(there - here)
                counts[second, first] += weight(there - here)
    return counts


@settings(deadline=None)
@given(HISTORIES)
def test_it_counts_pairs_of_positions(histories: list[list[int]]) -> None:
    pairs = cooccurrence(sequences(histories), ITEMS)
    assert pairs.dtype == pairs.indices.dtype == np.int32
    assert pairs.has_sorted_indices
    assert (pairs.data > 0).all()
    np.testing.assert_array_equal(pairs.toarray(), counted(histories))


@settings(deadline=None)
@given(HISTORIES, st.integers(1, 8))
def test_a_window_counts_pairs_of_positions_within_it(histories: list[list[int]], size: int) -> None:
    pairs = Window(size=size).counts(sequences(histories), ITEMS)
    assert pairs.dtype == np.int32
    assert pairs.has_sorted_indices
    assert (pairs.data > 0).all()
    np.testing.assert_array_equal(pairs.toarray(), counted(histories, lambda distance: distance <= size))


@settings(deadline=None)
@given(HISTORIES, st.sampled_from([0.0001, 0.3, 0.9]), st.integers(1, 8))
def test_weights_fall_with_the_distance_and_sums_are_exact(histories: list[list[int]], decay: float, size: int) -> None:
    def weight(distance: int) -> float:
        return round(decay ** (distance - 1) * 2**20) / 2**20 if distance <= size else 0.0

    pairs = DistanceDecay(decay=decay, size=size).counts(sequences(histories), ITEMS)
    assert pairs.has_sorted_indices
    assert (pairs.data > 0).all()
    np.testing.assert_array_equal(pairs.toarray(), counted(histories, weight))


def test_a_window_as_long_as_all_histories_is_the_whole_history() -> None:
    histories = sequences([[0, 1, 0, 2, 8], [3, 3], [], [8, 1, 4, 5]])
    whole, window = (each.counts(histories, ITEMS).toarray() for each in (WholeHistory(), Window(size=4)))
    np.testing.assert_array_equal(whole, window)
    assert whole[0].tolist() == [0, 2, 2, 0, 0, 0, 0, 0, 2]


@settings(deadline=None)
@given(HISTORIES, st.integers(1, 12))
def test_blocks_of_any_size_give_the_same_counts(histories: list[list[int]], most: int) -> None:
    made = [each.counts(sequences(histories), ITEMS).toarray() for each in (WholeHistory(), Window(size=2))]
    with patch("reaemb_bench.data.cooccurrence._PAIRS_AT_ONCE", most):
        again = [each.counts(sequences(histories), ITEMS).toarray() for each in (WholeHistory(), Window(size=2))]
    np.testing.assert_array_equal(made, again)


def test_counts_that_no_int32_holds_are_exact() -> None:
    history = np.tile(np.array([0, 1], dtype=np.int32), 100_000)
    made = cooccurrence(Sequences(history, np.array([0, len(history)])), 2)
    assert made.toarray().tolist() == [[0, 10**10], [10**10, 0]]


@settings(deadline=None)
@given(HISTORIES, st.integers(1, 3), st.integers(4, 6), st.integers(0, 99))
def test_candidates_are_the_nearest_neighbours_and_true_strangers(
    histories: list[list[int]], positives: int, candidates: int, seed: int
) -> None:
    counts = counted(histories)
    with patch("reaemb_bench.rl.candidates._NEIGHBOURS_AT_ONCE", 5):
        drawn = draw_candidates(cooccurrence(sequences(histories), ITEMS), positives, candidates, seed)
    assert drawn.lists.shape == drawn.counts.shape == (len(drawn.items), candidates)
    for item, listed, shown in zip(drawn.items, drawn.lists, drawn.counts, strict=True):
        assert len(set(listed)) == candidates
        assert item not in listed
        np.testing.assert_array_equal(shown, counts[item, listed])
        best = np.sort(counts[item])[::-1][:positives]
        np.testing.assert_array_equal(shown[:positives], best)
        assert (shown[positives:] == 0).all()
    neighbours = (counts > 0).sum(1)
    assert drawn.without_neighbours == (neighbours == 0).sum()
    taken = np.minimum(neighbours, positives)
    assert drawn.without_strangers == ((neighbours > 0) & (ITEMS - 1 - neighbours < candidates - taken)).sum()
    assert len(drawn.items) + drawn.without_neighbours + drawn.without_strangers == ITEMS


def stars(items: int) -> csr_array:
    """Items 0 to 3 all meet each other once; the rest meets nobody."""
    counts = np.zeros((items, items), dtype=np.int64)
    counts[:4, :4] = 1 - np.eye(4, dtype=np.int64)
    return csr_array(counts)


def test_equal_counts_and_negatives_are_drawn_uniformly_by_seed() -> None:
    lists = np.stack([draw_candidates(stars(12), 1, 3, seed).lists[0] for seed in range(900)])
    assert np.bincount(lists[:, 0])[1:4] == pytest.approx([300] * 3, rel=0.25)
    assert np.bincount(lists[:, 1:].ravel(), minlength=12)[4:] == pytest.approx([225] * 8, rel=0.3)


def test_weights_that_differ_by_less_than_a_half_are_told_apart() -> None:
    weights = csr_array(np.array([[0, 1.25, 1.0, 0], [1.25, 0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 0]]))
    drawn = draw_candidates(weights, 2, 3, 0)
    assert drawn.lists[0].tolist() == [1, 2, 3]
    assert drawn.counts[0].tolist() == [1.25, 1.0, 0.0]


def test_an_items_neighbours_are_never_drawn_as_its_negatives_among_many_items() -> None:
    rng = np.random.default_rng(0)
    histories = [rng.integers(3_000, size=6).tolist() for _ in range(2_000)]
    pairs = cooccurrence(sequences(histories), 3_000)
    drawn = draw_candidates(pairs, 3, 10, 0)
    known = pairs.toarray()
    for item, listed, counts in zip(drawn.items, drawn.lists, drawn.counts, strict=True):
        assert len({item, *listed}) == 11
        np.testing.assert_array_equal(known[item, listed], counts)
    assert len(drawn.items) == 3_000 - drawn.without_neighbours > 2_900


def test_the_same_seed_draws_the_same_lists() -> None:
    first, second = (draw_candidates(stars(12), 2, 6, 5) for _ in range(2))
    np.testing.assert_array_equal(first.lists, second.lists)


def test_an_item_that_met_nearly_everyone_is_left_out_and_counted() -> None:
    drawn = draw_candidates(stars(6), 1, 4, 0)
    assert (len(drawn.items), drawn.without_neighbours, drawn.without_strangers) == (0, 2, 4)


PLUGIN = """
import numpy as np
from scipy.sparse import csr_array
from reaemb_bench import Component


class Mine(Component):
    wrong: str = ""

    def counts(self, sequences, items):
        value = {"negative": -1.0, "nan": np.nan}.get(self.wrong, 1.0)
        size = items + 1 if self.wrong == "shape" else items
        made = np.full((size, size), value)
        if self.wrong != "diagonal":
            np.fill_diagonal(made, 0)
        return csr_array(made)
"""


def test_a_file_of_ones_own_counts_and_its_mistakes_are_told_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN, encoding="utf-8")
    step = build("step", {"use": "reinforce", "cooccurrence": f"{file}:Mine"})
    assert isinstance(step, Reinforce)
    made = checked(step.cooccurrence.counts(sequences([[0, 1]]), ITEMS), ITEMS, "mine")
    assert made.nnz == ITEMS * (ITEMS - 1)
    for wrong, said in (
        ("shape", r"gave counts of shape \(10, 10\), not \(9, 9\)"),
        ("negative", "not positive numbers"),
        ("nan", "not positive numbers"),
        ("diagonal", "counts items with themselves"),
    ):
        component = build("cooccurrence", {"use": f"{file}:Mine", "wrong": wrong})
        with pytest.raises(UserError, match=f"the cooccurrence 'mine' .*{said}"):
            checked(component.counts(sequences([[0, 1]]), ITEMS), ITEMS, "mine")  # type: ignore[attr-defined]


def test_the_second_stage_counts_as_it_is_told_and_on_training_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from reaemb_bench import Component\n"
        "class Telling(Component):\n"
        "    def counts(self, sequences, items):\n"
        "        raise RuntimeError(f'{items} items, {sequences.items.tolist()}')\n",
        encoding="utf-8",
    )
    keys = tuple("abcd")
    corpus = Corpus("toys", sequences([[0, 1], [2]]), keys, ("u", "v"), "", keys, keys)
    context = Context(0, Machine(device="cpu"), lambda tick: None, lambda facts: None, tmp_path)
    sound = build("step", {"use": "reinforce", "cooccurrence": f"{file}:Telling"})
    leaky = build("step", {"use": "reinforce-leaky-paper", "cooccurrence": f"{file}:Telling"})
    assert isinstance(sound, Reinforce)
    assert isinstance(leaky, ReinforceLeakyPaper)
    with pytest.raises(RuntimeError, match=r"4 items, \[0, 1, 2\]"):
        sound.run(corpus, Encoder(tmp_path), context)
    target = np.array([3], dtype=np.int32)
    test_targets = TestTargets(np.array([0]), target, np.zeros((1, 0), dtype=np.int32), corpus.training)
    with pytest.raises(RuntimeError, match=r"4 items, \[0, 1, 3, 2\]"):
        leaky.run(corpus, test_targets, Encoder(tmp_path), context)


def test_unsorted_counts_come_out_sorted_and_summed() -> None:
    rows = (np.array([1.0, 2.0, 4.0]), np.array([2, 1, 1]), np.array([0, 3, 3, 3]))
    assert checked(csr_array(rows, shape=(3, 3)), 3, "mine").toarray()[0].tolist() == [0, 6, 1]
