"""Ranks, lists and every number made of them against plain loops: ties, seen items, targets that were seen before."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaemb_bench.core.artifacts import Float32, Int64, Ranks, Sequences
from reaemb_bench.evaluation.metrics import gini, list_metrics
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.evaluation.summary import summarise

TAIL, SHORT, BINS = 6, 4, 3


def sequences(lists: list[list[int]]) -> Sequences:
    flat = np.array([item for each in lists for item in each], dtype=np.int32)
    return Sequences(flat, np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64))


@dataclass
class ByUser:
    """Gives each user the row of a matrix that the first item of the history names: it is seen, so it costs nothing."""

    matrix: Float32

    def scores(self, histories: Sequences) -> Float32:
        return self.matrix[histories.items[histories.offsets[:-1]]]


@dataclass
class Problem:
    """Histories start with the user's own number, so `ByUser` knows the user; there are more items than users."""

    scores: Float32
    histories: list[list[int]]
    targets: list[int]
    candidates: list[list[int]]
    popularity: Int64

    @property
    def users(self) -> int:
        return len(self.targets)

    def rank(self, top: int, chunk: int | None = None, users: list[int] | None = None) -> Ranks:
        chosen = list(range(self.users)) if users is None else users
        return rank_targets(
            ByUser(self.scores),
            sequences(self.histories),
            np.array(chosen),
            np.array([self.targets[user] for user in chosen], dtype=np.int32),
            np.array([self.candidates[user] for user in chosen], dtype=np.int32),
            popularity=self.popularity,
            top=top,
            chunk=chunk,
        )

    def left(self, user: int) -> list[int]:
        return [i for i in range(len(self.popularity)) if i == self.targets[user] or i not in self.histories[user]]

    def others(self, user: int, items: list[int]) -> tuple[int, int]:
        """How many of `items` beat the target and how many equal it."""
        wanted = self.scores[user, self.targets[user]]
        return sum(self.scores[user, i] > wanted for i in items), sum(self.scores[user, i] == wanted for i in items)


@st.composite
def problems(draw: st.DrawFn, ties: bool | None = None) -> Problem:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    users = draw(st.integers(1, 9))
    items = draw(st.integers(users + 1, 90))
    if draw(st.booleans()) if ties is None else ties:
        scores = rng.integers(0, draw(st.integers(1, 4)), size=(users, items)).astype(np.float32)
    else:
        scores = rng.permuted(np.tile(np.arange(items, dtype=np.float32) - 7, (users, 1)), axis=1)
    histories = [[user, *rng.integers(items, size=rng.integers(0, 2 * items)).tolist()] for user in range(users)]
    histories = [each[: int(rng.integers(1, len(each) + 1))] for each in histories]
    targets = rng.integers(items, size=users).tolist()
    for user in range(0, users, 2):
        histories[user] += [targets[user]] * 2
    if draw(st.booleans()):
        # One user has seen all but a few items, so that there is hardly enough for a list.
        histories[-1] = [users - 1, *rng.permutation(items)[draw(st.integers(0, 3)) :].tolist()]
    others = [np.delete(np.arange(items), target) for target in targets]
    sample = draw(st.integers(0, min(5, items - 1)))
    candidates = [rng.choice(each, sample, replace=False).tolist() for each in others]
    return Problem(scores, histories, targets, candidates, rng.integers(0, 12, size=items))


@settings(max_examples=150, deadline=None)
@given(problem=problems(), top=st.integers(1, 12), chunk=st.integers(1, 5))
def test_ranks_and_lists_are_what_plain_loops_find(problem: Problem, top: int, chunk: int) -> None:
    ranks = problem.rank(top, chunk)
    assert ranks.recommended.shape == (problem.users, top)
    for user, target in enumerate(problem.targets):
        left = problem.left(user)
        others = [item for item in left if item != target]
        assert (ranks.better[user], ranks.tied[user]) == problem.others(user, others)
        assert ranks.catalogue[user] == len(left)
        if problem.candidates[user]:
            sampled = (ranks.sampled_better[user], ranks.sampled_tied[user])
            assert sampled == problem.others(user, problem.candidates[user])
        listed = [item for item in ranks.recommended[user].tolist() if item >= 0]
        assert ranks.recommended[user].tolist() == listed + [-1] * (top - len(listed))
        assert len(set(listed)) == len(listed) == min(top, len(left))
        assert set(listed) <= set(left)
        scored = [problem.scores[user, item] for item in listed]
        assert scored == sorted((problem.scores[user, item] for item in left), reverse=True)[:top]
        if ranks.better[user] + ranks.tied[user] < top:
            assert target in listed
        if ranks.better[user] >= top:
            assert target not in listed


@settings(max_examples=60, deadline=None)
@given(problem=problems(ties=True), top=st.integers(2, 12))
def test_a_list_depends_on_its_user_alone_and_shorter_ones_are_its_beginning(problem: Problem, top: int) -> None:
    together = problem.rank(top)
    for user in range(problem.users):
        assert problem.rank(top, users=[user]).recommended.tolist() == [together.recommended[user].tolist()]
    backwards = problem.rank(top, chunk=2, users=list(range(problem.users))[::-1])
    assert backwards.recommended.tolist() == together.recommended[::-1].tolist()
    for shorter in range(top):
        assert problem.rank(shorter).recommended.tolist() == together.recommended[:, :shorter].tolist()


@settings(max_examples=60, deadline=None)
@given(problem=problems(), seed=st.integers(0, 100))
def test_numbering_the_items_anew_changes_no_rank_and_without_ties_no_list(problem: Problem, seed: int) -> None:
    items = len(problem.popularity)
    renamed = np.random.default_rng(seed).permutation(items)
    # The first item of a history stays, for it says which row of scores is the user's.
    keep = problem.users
    renamed = np.concatenate([np.arange(keep), renamed[renamed >= keep]])
    scores, popularity = np.empty_like(problem.scores), np.empty_like(problem.popularity)
    scores[:, renamed], popularity[renamed] = problem.scores, problem.popularity
    again = Problem(
        scores,
        [[int(renamed[item]) for item in each] for each in problem.histories],
        [int(renamed[item]) for item in problem.targets],
        [[int(renamed[item]) for item in each] for each in problem.candidates],
        popularity,
    )
    before, after = problem.rank(5), again.rank(5)
    for name in ("better", "tied", "sampled_better", "sampled_tied", "catalogue", "popularity", "history"):
        assert getattr(before, name).tolist() == getattr(after, name).tolist()
    if all(len(set(row)) == items for row in problem.scores.tolist()):
        expected = np.where(before.recommended < 0, -1, renamed[before.recommended])
        assert after.recommended.tolist() == expected.tolist()
        assert summarise(after, (1, 5)) == pytest.approx(summarise(before, (1, 5)))


def expected_gain(better: int, tied: int, gain: dict[int, float]) -> float:
    return sum(gain.get(place, 0.0) for place in range(better, better + tied + 1)) / (tied + 1)


def by_value(values: dict[int, int], name: str) -> dict[str, list[int]]:
    """Users by the share of users whose value is lower, in `BINS` steps."""
    made: dict[str, list[int]] = {}
    for user, value in values.items():
        below = sum(other < value for other in values.values()) / len(values)
        made.setdefault(f"{name}-q{math.floor(below * BINS + 1e-9) + 1}", []).append(user)
    return made


def plain_summary(problem: Problem, ranks: Ranks, k: int) -> dict[str, float]:
    """What `summarise` should say of metrics of the whole catalogue at one cut-off."""
    popularity = {user: int(problem.popularity[target]) for user, target in enumerate(problem.targets)}
    history = {user: len(each) for user, each in enumerate(problem.histories)}
    groups = {
        "cold": [user for user, value in popularity.items() if value == 0],
        "tail": [user for user, value in popularity.items() if 0 < value < TAIL],
        "head": [user for user, value in popularity.items() if value >= TAIL],
        "short": [user for user, value in history.items() if value < SHORT],
        "long": [user for user, value in history.items() if value >= SHORT],
        **by_value({user: value for user, value in popularity.items() if value > 0}, "popularity"),
        **by_value(history, "history"),
    }
    gains = {
        f"hr@{k}": dict.fromkeys(range(k), 1.0),
        f"ndcg@{k}": {place: 1 / math.log2(place + 2) for place in range(k)},
        "mrr": {place: 1 / (place + 1) for place in range(len(problem.popularity))},
    }
    said = {"users": float(problem.users), **{f"users/{name}": float(len(users)) for name, users in groups.items()}}
    for metric, gain in gains.items():
        for name, users in {"": list(history), **groups}.items():
            each = [expected_gain(int(ranks.better[user]), int(ranks.tied[user]), gain) for user in users]
            if each:
                said[f"full/{metric}/{name}".rstrip("/")] = sum(each) / len(each)
    for name, values in (("popularity", popularity), ("history", history)):
        for place, users in groups.items():
            if place.startswith(f"{name}-q"):
                said[f"low/{place}"] = min(values[user] for user in users)
                said[f"high/{place}"] = max(values[user] for user in users)
    return said


def plain_measures(lists: list[list[int]], popularity: list[int], tail: int) -> dict[str, float]:
    filled = [[item for item in each if item >= 0] for each in lists]
    filled = [each for each in filled if each]
    if not filled:
        return {}

    def mean_over_lists(value: dict[int, float]) -> float:
        return sum(sum(value[item] for item in each) / len(each) for each in filled) / len(filled)

    items = range(len(popularity))
    exposure = [sum(each.count(item) for each in filled) for item in items]
    differences = sum(abs(one - other) for one in exposure for other in exposure) / len(items) ** 2
    return {
        "coverage": sum(count > 0 for count in exposure) / len(items),
        "gini": differences / (2 * sum(exposure) / len(items)),
        "popularity": mean_over_lists({item: float(popularity[item]) for item in items}),
        "tail_share": mean_over_lists({item: float(0 < popularity[item] < tail) for item in items}),
        "cold_share": mean_over_lists({item: float(popularity[item] == 0) for item in items}),
    }


@settings(max_examples=80, deadline=None)
@given(problem=problems(), top=st.integers(1, 8), data=st.data())
def test_every_number_of_a_summary_is_what_plain_loops_find(problem: Problem, top: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, top))
    ranks = problem.rank(top)
    found = summarise(ranks, (k,), TAIL, SHORT, BINS)
    expected = plain_summary(problem, ranks, k)
    lists = plain_measures(ranks.recommended[:, :k].tolist(), problem.popularity.tolist(), TAIL)
    expected |= {f"full/{name}@{k}": value for name, value in lists.items()}
    assert {name: value for name, value in found.items() if not name.startswith("sampled")} == pytest.approx(expected)
    parts = ("full", "users", "low", "high", "sampled")
    assert all(name.split("/")[0] in parts for name in found)


def constant(users: int, items: int) -> Problem:
    nothing: list[list[int]] = [[] for _ in range(users)]
    targets = np.random.default_rng(0).integers(users, items, size=users).tolist()
    histories = [[user] for user in range(users)]
    return Problem(np.ones((users, items), dtype=np.float32), histories, targets, nothing, np.ones(items, np.int64))


@pytest.mark.parametrize(("items", "top"), [(450, 3), (450, 40)])
def test_a_constant_scorer_ranks_and_recommends_at_chance(items: int, top: int) -> None:
    users = 400
    ranks = constant(users, items).rank(top)
    summary = summarise(ranks, (top,))
    assert summary[f"full/hr@{top}"] == pytest.approx(top / (items - 1))
    hits = (ranks.recommended == ranks.targets[:, None]).any(axis=1).mean()
    assert hits == pytest.approx(top / (items - 1), abs=4 * math.sqrt(top / items / users))
    # Items of high and low number are listed equally often, each about as often as chance has it.
    exposure = np.bincount(ranks.recommended.ravel(), minlength=items)
    mean = users * top / items
    assert exposure[: items // 2].mean() == pytest.approx(mean, abs=4 * math.sqrt(mean / items * 2))
    assert exposure.std() == pytest.approx(math.sqrt(mean), rel=0.25)
    first = np.bincount(ranks.recommended[:, 0] // 45, minlength=10)
    assert first.min() > 15
    assert summary[f"full/coverage@{top}"] == pytest.approx(1 - (1 - top / items) ** users, abs=0.05)


def test_ties_at_the_end_of_a_list_are_drawn_evenly_beside_items_that_are_better() -> None:
    users, items, top = 300, 400, 5
    problem = constant(users, items)
    problem.scores[:, 350] = 3
    problem.scores[:, [320, 330]] = 2
    recommended = problem.rank(top).recommended
    assert (recommended[:, 0] == 350).all()
    assert {tuple(sorted(row)) for row in recommended[:, 1:3].tolist()} == {(320, 330)}
    assert 0.4 < (recommended[:, 1] == 320).mean() < 0.6
    rest = np.bincount(recommended[:, 3:].ravel(), minlength=items)
    assert rest[:100].sum() == pytest.approx(150, abs=45)
    assert rest[300:].sum() == pytest.approx(150, abs=45)


def test_the_gini_index_of_known_exposures() -> None:
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 4, 0, 0])) == 0.75
    assert gini(np.array([1, 3])) == pytest.approx(0.25)


def test_measures_of_lists_that_are_known() -> None:
    lists = np.array([[0, 1], [0, -1], [-1, -1]], dtype=np.int32)
    assert list_metrics(lists, np.array([30, 5, 0, 0]), tail=20) == pytest.approx(
        {
            "coverage": 0.5,
            "gini": (1 * 1 + 3 * 2) / (4 * 3),
            "popularity": (17.5 + 30) / 2,
            "tail_share": 0.25,
            "cold_share": 0.0,
        }
    )
    assert list_metrics(lists[2:], np.array([30, 5, 0, 0])) == {}


def test_lists_are_described_up_to_their_length_and_no_further() -> None:
    problem = constant(20, 60)
    names = {name for name in summarise(problem.rank(5), (1, 5, 10)) if "coverage" in name or "gini" in name}
    assert names == {"full/coverage@1", "full/coverage@5", "full/gini@1", "full/gini@5"}
    assert not [name for name in summarise(problem.rank(0), (1, 5)) if "coverage" in name]


@pytest.mark.parametrize("top", [0, 4])
def test_lists_survive_the_disk(tmp_path: Path, top: int) -> None:
    ranks = constant(5, 30).rank(top)
    ranks.save(tmp_path)
    again = Ranks.load(tmp_path)
    for name, array in vars(ranks).items():
        loaded = getattr(again, name)
        assert loaded.dtype == array.dtype
        assert np.array_equal(loaded, array)
    assert summarise(again, (2,)) == summarise(ranks, (2,))
