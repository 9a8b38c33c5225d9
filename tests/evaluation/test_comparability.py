"""Results of other data, targets, histories, catalogues or candidates are recognised by their ranks alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Float32, Ranks, Sequences
from reaemb_bench.core.errors import UserError
from reaemb_bench.evaluation.comparability import SAMPLE, check_comparable, protocol_differences
from reaemb_bench.evaluation.ranking import rank_targets

USERS, ITEMS = 6, 30


class Scores:
    def __init__(self, seed: int = 0) -> None:
        self.row = np.random.default_rng(seed).random(ITEMS, dtype=np.float32)

    def scores(self, histories: Sequences) -> Float32:
        return np.broadcast_to(self.row, (histories.users, ITEMS))


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    return {
        "histories": Sequences(rng.integers(20, size=4 * USERS, dtype=np.int32), np.arange(0, 4 * USERS + 1, 4)),
        "users": np.arange(USERS),
        "targets": rng.integers(20, size=USERS, dtype=np.int32),
        "candidates": np.tile(np.arange(20, 25, dtype=np.int32), (USERS, 1)),
        "popularity": rng.integers(1, 9, size=ITEMS),
    }


def ranked(changes: dict[str, Any] | None = None, seed: int = 0) -> Ranks:
    return rank_targets(Scores(seed), **{**inputs(), **(changes or {})})


def swapped_history() -> Sequences:
    """The same items for every user, two of them in another order: lengths and catalogues stay as they are."""
    histories: Sequences = inputs()["histories"]
    items = histories.items.copy()
    items[[0, 3]] = [histories.items[3], histories.items[0]]
    assert not np.array_equal(items, histories.items)
    return Sequences(items, histories.offsets)


def plus_one(name: str) -> Callable[[], dict[str, Any]]:
    return lambda: {name: inputs()[name] + 1}


CHANGES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "targets": (plus_one("targets"), "users or targets"),
    "training counts of items that are no target": (
        lambda: {"popularity": inputs()["popularity"] + np.eye(1, ITEMS, 29, dtype=np.int64)[0]},
        "training data",
    ),
    "order of a history": (lambda: {"histories": swapped_history()}, "histories"),
    "items that leave the catalogue": (
        lambda: {"seen": Sequences(np.zeros(0, dtype=np.int32), np.zeros(USERS + 1, dtype=np.int64))},
        "catalogue",
    ),
    "other candidates, as many": (plus_one("candidates"), SAMPLE),
    "fewer candidates": (lambda: {"candidates": inputs()["candidates"][:, :3]}, SAMPLE),
    "no candidates": (lambda: {"candidates": inputs()["candidates"][:, :0]}, SAMPLE),
}


def test_another_method_on_the_same_protocol_is_comparable(tmp_path: Path) -> None:
    ours, theirs = ranked(), ranked(seed=1)
    assert not np.array_equal(ours.better, theirs.better)
    assert protocol_differences(ours, theirs) == ()
    theirs.save(tmp_path)
    assert protocol_differences(ours, Ranks.load(tmp_path)) == ()
    assert check_comparable({"a": [ours, theirs], "b": [theirs]}) == frozenset()


@pytest.mark.parametrize("change", CHANGES)
def test_each_part_of_the_protocol_is_compared(change: str, tmp_path: Path) -> None:
    changes, part = CHANGES[change]
    other = ranked(changes())
    other.save(tmp_path)
    for theirs in (other, Ranks.load(tmp_path)):
        assert part in protocol_differences(ranked(), theirs)
        assert protocol_differences(theirs, theirs) == ()


def test_another_sample_empties_sampled_cells_and_anything_else_is_refused() -> None:
    smaller = ranked(CHANGES["fewer candidates"][0]())
    assert check_comparable({"a": [ranked()], "b": [smaller], "c": [ranked(seed=1)]}) == {"b"}
    other = ranked(CHANGES["order of a history"][0]())
    with pytest.raises(UserError, match="a and c have different histories, so no table can hold both"):
        check_comparable({"a": [ranked()], "b": [ranked()], "c": [other]})
    with pytest.raises(UserError, match="the seeds of a have different users or targets"):
        check_comparable({"a": [ranked(), ranked(CHANGES["targets"][0]())]})


def test_results_without_hashes_are_compared_by_what_they_have() -> None:
    none = np.zeros(0, dtype=np.uint64)
    old = replace(ranked(CHANGES["fewer candidates"][0]()), history_hash=none, sample_hash=none)
    assert protocol_differences(ranked(), old) == ()
    assert "users or targets" in protocol_differences(ranked(CHANGES["targets"][0]()), old)
