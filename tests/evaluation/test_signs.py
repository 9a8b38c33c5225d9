"""Ranks that mean little say so: equal scores from any cause, constant metrics, training that reads too little."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Float32, Ranks, Sequences
from reaemb_bench.evaluation.comparability import equal_scores, rank_signs
from reaemb_bench.evaluation.ranking import rank_targets
from tests.conftest import Said

IDS = Path(__file__).parents[2] / "baselines/ids/recipe.toml"
Command = Callable[..., Said]


class Rows:
    def __init__(self, rows: Float32) -> None:
        self.rows = rows

    def scores(self, histories: Sequences) -> Float32:
        return self.rows


def ranked(rows: list[list[float]], targets: list[int], history: int = 0) -> Ranks:
    users, items = len(rows), len(rows[0])
    return rank_targets(
        Rows(np.array(rows, dtype=np.float32)),
        Sequences(np.tile(np.arange(history, dtype=np.int32), users), np.arange(users + 1) * history),
        np.arange(users),
        np.array(targets, dtype=np.int32),
        np.zeros((users, 0), dtype=np.int32),
        popularity=np.ones(items, dtype=np.int64),
    )


def test_users_whose_scores_are_all_equal_are_counted() -> None:
    ranks = ranked([[1, 2, 3], [5, 5, 5], [0, 0, 0], [5, 5, 4]], [0, 1, 2, 0])
    assert equal_scores(ranks) == 2
    (line,) = rank_signs("ours", [ranks])
    assert line.startswith("2 of 4 users of ours have all scores equal, so their targets rank at chance")


def test_only_items_that_can_be_recommended_count() -> None:
    # Item 0 is in every history, so its other score changes nothing.
    assert equal_scores(ranked([[9, 5, 5, 5], [9, 5, 5, 6]], [2, 2], history=1)) == 1


def test_a_metric_that_is_the_same_for_all_users_is_named() -> None:
    ranks = ranked([[3, 2, 1], [3, 2, 1]], [0, 0])
    assert [line.partition(",")[0] for line in rank_signs("ours", [ranks])] == [
        "NDCG@10 of ours is the same for all 2 users (1.0000)"
    ]
    assert not list(rank_signs("ours", [ranks, ranked([[3, 2, 1], [1, 2, 3]], [0, 0])]))


@pytest.mark.parametrize(("length", "said"), [(50, False), (3, True)])
def test_a_table_says_what_training_never_reads(command: Command, length: int, said: bool) -> None:
    edits = ['prepare.source={use="simulated", users=40, items=30}', f"train.head.max_length={length}"]
    edits += ["train.epochs=1"]
    ran = command("run", IDS, *(word for edit in edits for word in ("--set", edit)))
    assert ran.code == 0, ran.err
    out = ran.out
    assert ("train never reads" in " ".join(out.split())) == said
    assert ("users are not trained on at all" in " ".join(out.split())) == said
