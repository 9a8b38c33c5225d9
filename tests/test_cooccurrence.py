"""Co-occurrence counts and candidate lists against their definitions."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from reaemb_bench.artifacts import Sequences
from reaemb_bench.data.candidates import draw_candidates
from reaemb_bench.data.cooccurrence import cooccurrence

ITEMS = 9
HISTORIES = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=7), min_size=1, max_size=8)


def sequences(histories: list[list[int]]) -> Sequences:
    offsets = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    return Sequences(np.array([item for history in histories for item in history], dtype=np.int32), offsets)


def counted(histories: list[list[int]]) -> np.ndarray:
    counts = np.zeros((ITEMS, ITEMS), dtype=np.int64)
    for history in histories:
        for first, second in combinations(history, 2):
            if first != second:
                counts[first, second] += 1
                counts[second, first] += 1
    return counts


@given(HISTORIES)
def test_it_counts_pairs_of_positions(histories: list[list[int]]) -> None:
    pairs = cooccurrence(sequences(histories), ITEMS)
    assert pairs.dtype == pairs.indices.dtype == np.int32
    assert pairs.has_sorted_indices
    assert (pairs.data > 0).all()
    np.testing.assert_array_equal(pairs.toarray(), counted(histories))


@given(HISTORIES, st.integers(1, 3), st.integers(4, 6), st.integers(0, 99))
def test_candidates_are_the_nearest_neighbours_and_true_strangers(
    histories: list[list[int]], positives: int, candidates: int, seed: int
) -> None:
    counts = counted(histories)
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
    assert drawn.lonely == (neighbours == 0).sum()
    taken = np.minimum(neighbours, positives)
    assert drawn.crowded == ((neighbours > 0) & (ITEMS - 1 - neighbours < candidates - taken)).sum()
    assert len(drawn.items) + drawn.lonely + drawn.crowded == ITEMS


def stars(items: int) -> csr_array:
    """Items 0 to 3 all meet each other once; the rest meets nobody."""
    counts = np.zeros((items, items), dtype=np.int64)
    counts[:4, :4] = 1 - np.eye(4, dtype=np.int64)
    return csr_array(counts)


def test_equal_counts_and_negatives_are_drawn_uniformly_by_seed() -> None:
    lists = np.stack([draw_candidates(stars(12), 1, 3, seed).lists[0] for seed in range(900)])
    assert np.bincount(lists[:, 0])[1:4] == pytest.approx([300] * 3, rel=0.25)
    assert np.bincount(lists[:, 1:].ravel(), minlength=12)[4:] == pytest.approx([225] * 8, rel=0.3)


def test_the_same_seed_draws_the_same_lists() -> None:
    first, second = (draw_candidates(stars(12), 2, 6, 5) for _ in range(2))
    np.testing.assert_array_equal(first.lists, second.lists)


def test_an_item_that_met_nearly_everyone_is_left_out_and_counted() -> None:
    drawn = draw_candidates(stars(6), 1, 4, 0)
    assert (len(drawn.items), drawn.lonely, drawn.crowded) == (0, 2, 4)
