"""Ranks against a loop that is too simple to be wrong; ties, exclusions, refusals."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaemb_bench.core.artifacts import (
    Corpus,
    Float32,
    Int32,
    Int64,
    Ranker,
    Ranks,
    Sequences,
    TestTargets,
    ValidationTargets,
)
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.evaluation.summary import summarise
from reaemb_bench.recommender.fit import TrainIds
from reaemb_bench.recommender.score import Rank


class Fixed:
    """Gives the rows of a matrix one after the other."""

    def __init__(self, matrix: Float32) -> None:
        self.matrix = matrix
        self.matrix.setflags(write=False)
        self.given = 0

    def scores(self, histories: Sequences) -> Float32:
        rows = self.matrix[self.given : self.given + histories.users]
        self.given += histories.users
        return rows


def sequences(lists: list[list[int]]) -> Sequences:
    lengths = [len(each) for each in lists]
    flat = np.array([item for each in lists for item in each], dtype=np.int32)
    return Sequences(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def problem(seed: int, users: int = 30, items: int = 25) -> tuple[Float32, Sequences, Int64, Int32, Int32, Int64]:
    """Scores full of ties; histories with repeats, empty ones, and ones that contain the target already."""
    rng = np.random.default_rng(seed)
    histories = [rng.integers(items, size=rng.integers(0, 9)).tolist() for _ in range(users)]
    judged = np.sort(rng.choice(users, users * 2 // 3, replace=False))
    targets = rng.integers(items, size=len(judged)).astype(np.int32)
    for user, target in zip(judged[::3], targets[::3], strict=True):
        histories[user] += [int(target), int(target)]
    others = [[item for item in range(items) if item != target] for target in targets]
    candidates = np.array([rng.choice(each, 6, replace=False) for each in others], dtype=np.int32)
    scores = rng.integers(0, 5, size=(len(judged), items)).astype(np.float32)
    return scores, sequences(histories), judged, targets, candidates, rng.integers(0, 30, size=items)


def by_loop(
    scores: Float32, histories: Sequences, users: Int64, targets: Int32, candidates: Int32
) -> list[tuple[int, int, int, int, int]]:
    rows = []
    for row, (user, target) in enumerate(zip(users, targets, strict=True)):
        wanted = scores[row, target]
        left = [item for item in range(scores.shape[1]) if item not in set(histories.of(user).tolist()) - {target}]
        others = [scores[row, item] for item in left if item != target]
        sample = [scores[row, item] for item in candidates[row]]
        rows.append(
            (
                sum(other > wanted for other in others),
                sum(other == wanted for other in others),
                sum(other > wanted for other in sample),
                sum(other == wanted for other in sample),
                len(left),
            )
        )
    return rows


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), chunk=st.integers(1, 40))
def test_a_plain_loop_agrees(seed: int, chunk: int) -> None:
    scores, histories, users, targets, candidates, popularity = problem(seed)
    ranks = rank_targets(Fixed(scores), histories, users, targets, candidates, popularity=popularity, chunk=chunk)
    counts = (ranks.better, ranks.tied, ranks.sampled_better, ranks.sampled_tied, ranks.catalogue)
    found = [tuple(int(value) for value in row) for row in zip(*counts, strict=True)]
    assert found == by_loop(scores, histories, users, targets, candidates)
    assert ranks.popularity.tolist() == [popularity[target] for target in targets]
    assert ranks.history.tolist() == [len(histories.of(user)) for user in users]


def one_user(scores: list[float], history: list[int], target: int, seen: list[int] | None = None) -> Ranks:
    return rank_targets(
        Fixed(np.array([scores], dtype=np.float32)),
        sequences([history]),
        np.array([0]),
        np.array([target], dtype=np.int32),
        np.zeros((1, 0), dtype=np.int32),
        popularity=np.ones(len(scores), dtype=np.int64),
        seen=None if seen is None else sequences([seen]),
    )


def test_a_target_that_is_in_the_history_stays() -> None:
    ranks = one_user([3, 2, 1, 2], history=[0, 1, 1, 0], target=1)
    assert (ranks.better[0], ranks.tied[0], ranks.catalogue[0]) == (0, 1, 3)


def test_what_leaves_the_catalogue_can_be_said() -> None:
    ranks = one_user([3, 2, 1, 2], history=[0, 1], target=2, seen=[3])
    assert (ranks.better[0], ranks.catalogue[0], ranks.history[0]) == (2, 3, 2)


def test_without_candidates_there_is_no_sampled_rank() -> None:
    assert not [name for name in summarise(one_user([3, 2, 1], [0], 1)) if name.startswith("sampled")]


def test_a_constant_scorer_ranks_at_chance_and_an_oracle_first() -> None:
    users, items, sample = 40, 300, 100
    rng = np.random.default_rng(0)
    targets = rng.integers(items, size=users).astype(np.int32)
    candidates = np.array([rng.permutation(np.delete(np.arange(items), t))[:sample] for t in targets], dtype=np.int32)
    nothing = sequences([[]] * users)
    oracle = np.zeros((users, items), dtype=np.float32)
    oracle[np.arange(users), targets] = 1
    popularity = np.full(items, 50)
    summaries = [
        summarise(rank_targets(Fixed(scores), nothing, np.arange(users), targets, candidates, popularity=popularity))
        for scores in (np.full((users, items), 7, dtype=np.float32), oracle)
    ]
    assert summaries[0]["full/hr@10"] == pytest.approx(10 / items)
    assert summaries[0]["sampled/hr@10"] == pytest.approx(10 / (sample + 1))
    assert summaries[0]["sampled/ndcg@10"] == pytest.approx((1 / np.log2(np.arange(10) + 2)).sum() / (sample + 1))
    assert {value for name, value in summaries[1].items() if name.startswith(("full", "sampled"))} == {1.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scores, histories, users, targets, candidates, popularity = problem(1)
    scores[3, 4] = bad
    with pytest.raises(UserError, match=r"1 of \d+ scores are not finite"):
        rank_targets(Fixed(scores), histories, users, targets, candidates, popularity=popularity)


def test_scores_whose_sum_overflows_are_finite() -> None:
    greatest = float(np.finfo(np.float32).max)
    ranks = one_user([greatest, greatest, -greatest, greatest], history=[0], target=1)
    assert (ranks.better[0], ranks.tied[0], ranks.catalogue[0]) == (0, 1, 3)


def test_a_scorer_is_asked_for_fewer_users_where_the_catalogue_is_large() -> None:
    asked: list[int] = []

    class Constant:
        def scores(self, histories: Sequences) -> Float32:
            asked.append(histories.users)
            return np.broadcast_to(np.float32(1), (histories.users, len(popularity)))

    for items in (1_000, 1_000_000):
        popularity = np.ones(items, dtype=np.int64)
        users = np.arange(20)
        ranks = rank_targets(
            Constant(),
            sequences([[5, 5]] * 20),
            users,
            users.astype(np.int32),
            np.zeros((20, 0), dtype=np.int32),
            popularity=popularity,
        )
        assert ranks.tied.tolist() == [items - 2] * 5 + [items - 1] + [items - 2] * 14
    assert asked == [20, 8, 8, 4]


def test_scores_of_another_shape_are_refused() -> None:
    scores, histories, users, targets, candidates, popularity = problem(1)
    with pytest.raises(UserError, match=r"shape \(20, 24\), not \(20, 25\)"):
        rank_targets(Fixed(scores[:, :-1]), histories, users, targets, candidates, popularity=popularity)


def test_scores_that_are_whole_numbers_are_refused() -> None:
    scores, histories, users, targets, candidates, popularity = problem(1)
    whole: Float32 = scores.astype(np.int64)  # type: ignore[assignment]
    with pytest.raises(UserError, match="type int64, not float32"):
        rank_targets(Fixed(whole), histories, users, targets, candidates, popularity=popularity)


def test_progress_is_reported_and_nobody_gives_an_empty_table() -> None:
    scores, histories, users, targets, candidates, popularity = problem(2)
    ticks: list[Progress] = []
    rank_targets(
        Fixed(scores), histories, users, targets, candidates, popularity=popularity, chunk=8, report=ticks.append
    )
    assert [(tick.done, tick.total) for tick in ticks] == [(8, 20), (16, 20), (20, 20)]
    none = rank_targets(Fixed(scores), histories, users[:0], targets[:0], candidates[:0], popularity=popularity)
    assert len(none.better) == len(none.catalogue) == 0


def test_the_step_ranks_a_trained_recommender_and_refuses_a_diverged_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    training = sequences(rng.integers(12, size=(20, 4)).tolist())
    keys = tuple(str(item) for item in range(12))
    corpus = Corpus("toys", training, keys, tuple(str(user) for user in range(20)), "", keys, keys)
    users, targets = np.arange(20), rng.integers(12, size=20).astype(np.int32)
    validation_targets = ValidationTargets(users, targets, np.zeros((20, 0), dtype=np.int32))
    test_targets = TestTargets(
        users[5:], targets[5:], validation_targets.candidates[5:], training.followed_by(users, targets)
    )
    machine = Machine(device="cpu")
    context = Context(seed=0, machine=machine, report=lambda tick: None, note=lambda facts: None, scratch=tmp_path)
    head = {"use": "sasrec", "hidden": 8, "max_length": 5}
    ranker = TrainIds.model_validate({"head": head, "epochs": 1}).run(corpus, validation_targets, context)
    ranks = Rank().run(corpus, test_targets, ranker, context)
    assert ranks.users.tolist() == list(range(5, 20))
    assert ranks.history.tolist() == [5] * 15
    assert (ranks.better + ranks.tied < ranks.catalogue).all()
    broken = Ranker(ranker.head, {**ranker.tensors, "vectors": np.full_like(ranker.tensors["vectors"], np.nan)})
    with pytest.raises(UserError, match="has diverged"):
        Rank().run(corpus, test_targets, broken, context)
