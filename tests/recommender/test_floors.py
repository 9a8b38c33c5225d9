"""Floors: what they score, that they see training counts alone, and the steps that rank."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Corpus, Floors, Ranks, Sequences, TestTargets
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.evaluation.summary import summarise
from reaemb_bench.recommender.simple_baselines import ItemKNN, LastItemKNN, Popularity, Random, RankFloors
from tests.conftest import Said


def sequences(lists: list[list[int]]) -> Sequences:
    flat = np.array([item for each in lists for item in each], dtype=np.int32)
    return Sequences(flat, np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64))


def corpus(training: list[list[int]], items: int) -> Corpus:
    keys = tuple(str(item) for item in range(items))
    return Corpus("toys", sequences(training), keys, tuple(f"u{user}" for user in range(len(training))), "", keys, keys)


def context(ticks: list[Progress], folder: Path) -> Context:
    return Context(seed=0, machine=Machine(device="cpu"), report=ticks.append, note=lambda facts: None, scratch=folder)


TRAINING = [[0, 1, 2], [1, 2, 1], [2, 3], [4], []]


def test_popularity_counts_training_interactions() -> None:
    scores = Popularity().fit(corpus(TRAINING, 6)).scores(sequences([[0], []]))
    assert scores.dtype == np.float32
    assert scores.tolist() == [[1, 3, 3, 1, 1, 0]] * 2


@pytest.mark.parametrize("counts", ["binary", "all"])
def test_item_knn_sums_cosines_of_columns_over_the_history_or_takes_its_last_items(counts: Any) -> None:
    items = 6
    matrix = np.zeros((len(TRAINING), items))
    for user, row in enumerate(TRAINING):
        np.add.at(matrix[user], row, 1)
    assert matrix.max() == 2, "an item is repeated, so that the two ways of counting differ"
    if counts == "binary":
        matrix = np.minimum(matrix, 1)
    norms = np.maximum(np.linalg.norm(matrix, axis=0), 1)
    cosine = matrix.T @ matrix / np.outer(norms, norms)
    np.fill_diagonal(cosine, 0)
    histories = [[0, 3], [2, 2, 1], [4], [5], []]
    read = [sorted(set(history)) if counts == "binary" else history for history in histories]
    expected = np.array([cosine[history].sum(axis=0) if history else np.zeros(items) for history in read])
    of_last = np.array([cosine[history[-1]] if history else np.zeros(items) for history in histories])
    for floor, wanted in ((ItemKNN(counts=counts), expected), (LastItemKNN(counts=counts), of_last)):
        scores = floor.fit(corpus(TRAINING, items)).scores(sequences(histories))
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, wanted, atol=1e-6)
    assert not np.allclose(expected, of_last)


def test_random_scores_do_not_depend_on_who_is_scored_together() -> None:
    rng = np.random.default_rng(3)
    histories = sequences([rng.integers(50, size=length).tolist() for length in (4, 1, 0, 9, 2, 30)])
    scorer = Random().fit(corpus(TRAINING, 50))
    together = scorer.scores(histories)
    alone = np.concatenate([scorer.scores(histories.select(np.array([user]))) for user in range(6)])
    assert np.array_equal(together, alone)
    assert np.array_equal(together[::-1], scorer.scores(histories.select(np.arange(6)[::-1])))
    assert not np.array_equal(together, Random(seed=1).fit(corpus(TRAINING, 50)).scores(histories))


def test_random_scores_are_uniform_and_unrelated_between_users_items_and_seeds() -> None:
    histories = sequences([[user, user + 1] for user in range(400)])
    scores = Random().fit(corpus(TRAINING, 500)).scores(histories)
    assert 0 <= scores.min() < 1e-4
    assert 1 - 1e-4 < scores.max() < 1
    assert np.histogram(scores, bins=10, range=(0, 1))[0] / scores.size == pytest.approx(0.1, abs=0.005)
    for other in (scores[:, ::-1], scores[::-1], Random(seed=7).fit(corpus(TRAINING, 500)).scores(histories)):
        assert abs(np.corrcoef(scores.ravel(), other.ravel())[0, 1]) < 0.01


def test_the_order_of_a_history_counts_for_random_scores() -> None:
    scores = Random().fit(corpus(TRAINING, 5)).scores(sequences([[1, 2], [2, 1]]))
    assert not np.array_equal(scores[0], scores[1])


def test_the_random_floor_has_the_known_sampled_metrics() -> None:
    users, items = 12_000, 300
    rng = np.random.default_rng(11)
    histories = sequences(rng.integers(items, size=(users, 4)).tolist())
    drawn = np.argsort(rng.random((users, items), dtype=np.float32), axis=1)[:, :101].astype(np.int32)
    ranks = rank_targets(
        Random().fit(corpus(TRAINING, items)),
        histories,
        np.arange(users),
        drawn[:, 0],
        drawn[:, 1:],
        popularity=np.ones(items, dtype=np.int64),
    )
    summary = summarise(ranks)
    assert summary["sampled/hr@10"] == pytest.approx(0.0990, abs=0.01)
    assert summary["sampled/ndcg@10"] == pytest.approx(0.0450, abs=0.006)
    assert summary["full/hr@10"] == pytest.approx((10 / ranks.catalogue).mean(), abs=0.006)


def held_out_targets() -> TestTargets:
    return TestTargets(
        users=np.array([0, 1, 2]),
        targets=np.array([3, 0, 1], dtype=np.int32),
        candidates=np.array([[4, 5], [4, 5], [4, 5]], dtype=np.int32),
        histories=sequences([[0, 1, 2], [1, 2, 1], [2, 3], [4], []]),
    )


def test_the_step_ranks_every_floor_and_its_result_survives_the_disk(tmp_path: Path) -> None:
    ticks: list[Progress] = []
    made = RankFloors().run(corpus(TRAINING, 6), held_out_targets(), context(ticks, tmp_path))
    assert list(made.by_name) == ["random", "popularity", "item-knn", "last-item-knn"]
    # Items 3 and 4 were bought once, item 5 never; items 0 to 2 are in the first history.
    popular = made.by_name["popularity"]
    assert (popular.better[0], popular.tied[0], popular.catalogue[0]) == (0, 1, 3)
    assert (popular.sampled_better[0], popular.sampled_tied[0]) == (0, 1)
    assert made.by_name["item-knn"].better.tolist() == [0, 0, 0]
    assert set(popular.recommended[0, :2].tolist()) == {3, 4}
    assert popular.recommended[0, 2:].tolist() == [5] + [-1] * 7
    assert [tick.done for tick in ticks] == [3, 6, 9, 12]
    assert {tick.total for tick in ticks} == {12}
    made.save(tmp_path)
    again = Floors.load(tmp_path)
    for name, ranks in made.by_name.items():
        assert all(np.array_equal(array, vars(again.by_name[name])[field]) for field, array in vars(ranks).items())


def test_a_floor_named_twice_is_refused(tmp_path: Path) -> None:
    step = build("step", {"use": "floors", "floors": ["random", {"use": "random", "seed": 1}]})
    assert isinstance(step, RankFloors)
    with pytest.raises(UserError, match="'random' is named twice"):
        step.run(corpus(TRAINING, 6), held_out_targets(), context([], tmp_path))


def test_a_floor_that_does_not_exist_is_named() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'popularity'"):
        build("step", {"use": "floors", "floors": ["popularty"]})


def test_ranks_have_a_row_for_each_test_user(tmp_path: Path) -> None:
    made = RankFloors(floors=("popularity",)).run(corpus(TRAINING, 6), held_out_targets(), context([], tmp_path))  # type: ignore[arg-type]
    ranks = made.by_name["popularity"]
    assert isinstance(ranks, Ranks)
    assert ranks.users.tolist() == [0, 1, 2]
    assert ranks.popularity.tolist() == [1, 1, 3]
    assert ranks.history.tolist() == [3, 3, 2]


def test_floors_are_shown_by_themselves(command: Callable[..., Said], tmp_path: Path) -> None:
    recipe = tmp_path / "floors.toml"
    recipe.write_text(
        'title = "Floors alone"\nsteps = ["prepare", "floors"]\n'
        '[prepare]\nsource = { use = "simulated", users = 40, items = 30 }\n',
        encoding="utf-8",
    )
    ran = command("run", recipe)
    assert ran.code == 0, ran.err
    shown = [
        line.split()[0] for line in ran.out.splitlines() if line.split() and line.split()[-1].startswith((".", "1"))
    ]
    assert shown[:4] == ["random", "popularity", "item-knn", "last-item-knn"]
    assert "40 test users" in ran.out
