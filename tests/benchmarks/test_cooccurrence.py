"""The plain side of the co-occurrence benchmark does the same work as ours, and both sizes run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cooccurrence import plain, run
from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.data.cooccurrence import cooccurrence

ITEMS = 9


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=7), min_size=1, max_size=8))
def test_the_plain_loop_counts_what_ours_counts(histories: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    items = np.array([item for each in histories for item in each], dtype=np.int32)
    pairs = cooccurrence(Sequences(items, offsets), ITEMS).toarray()
    met = plain.count(histories, ITEMS)
    assert [[each.get(other, 0) for other in range(ITEMS)] for each in met] == pairs.tolist()


@pytest.mark.parametrize("draw", [plain.draw, plain.draw_by_rejection])
def test_both_plain_ways_list_the_best_companion_and_strangers(draw: Callable[..., dict[int, list[int]]]) -> None:
    met = plain.count([[0, 1, 2, 1], [3, 4], [5]], ITEMS)
    lists = draw(met, 1, 4, seed=0)
    assert sorted(lists) == [0, 1, 2, 3, 4]
    assert [lists[0][0], lists[2][0], lists[3][0]] == [1, 1, 4]
    for item, listed in lists.items():
        assert len({item, *listed}) == 5
        assert not {*listed[1:]} & met[item].keys()


def test_histories_have_the_size_asked_for() -> None:
    made = run.simulated(users=500, items=80, interactions=3_600)
    assert (made.users, len(made.items)) == (500, 3_600)
    assert made.lengths.min() == 5
    assert made.lengths.max() > 5 * made.lengths.mean()
    assert made.items.max() == 79


@pytest.mark.slow
def test_it_measures_both_sizes_and_writes_them_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    words = ["--users", "60", "--items", "40", "--interactions", "440", "--large", "880", "--repeats", "1"]
    monkeypatch.setattr("sys.argv", ["run", *words, "--out", str(out)])
    run.main()
    said = capsys.readouterr().out
    result = json.loads(out.read_text(encoding="utf-8"))
    assert (result["large"]["users"], result["large"]["interactions"]) == (120, 880)
    assert [*result["large"]["components"]] == list(run.COMPONENTS)
    assert all(each["peak_bytes"] > 2**20 for each in result["large"]["components"].values())
    assert "60 users, 40 items, 440 interactions:" in said
    assert "| distance-decay | " in said


def test_sides_that_count_differently_are_refused() -> None:
    pairs = cooccurrence(Sequences(np.array([0, 1], dtype=np.int32), np.array([0, 2])), 2)
    run.check(plain.count([[0, 1]], 2), {0: [], 1: []}, pairs, [0, 1])
    with pytest.raises(ValueError, match="count differently"):
        run.check(plain.count([[0, 1, 1]], 2), {0: [], 1: []}, pairs, [0, 1])
