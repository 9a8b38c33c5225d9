"""What rollouts rank, and the gradients that policies make of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.cooccurrence import cooccurrence, draw_neighbour
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.rl import crrl
from reaemb_bench.rl.candidates import draw_candidates, hard, of_batch, of_catalogue, sampled
from reaemb_bench.rl.crrl import Judge, Learner, Reinforce
from tests.rl.test_reinforce import CLUSTERS, ITEMS, Watched

SOUND = {
    "use": "reinforce",
    "policy": "pathwise",
    "similarity": "centred-cosine",
    "candidates_from": "batch",
    "group": 2,
    "rollouts_per_step": 24,
    "iterations": 1,
    "warmup": 0,
    "noise": 0.05,
    "learning_rate": 2e-3,
}


def settings_of(**changes: Any) -> Reinforce:
    step = build("step", {**SOUND, **changes})
    assert isinstance(step, Reinforce)
    return step


@pytest.mark.parametrize("source", ["sampled", "hard", "batch", "catalogue"])
def test_whatever_rollouts_rank_the_planted_neighbours_come_together(
    source: str,
    corpus: Corpus,
    encoder: Encoder,
    tmp_path: Path,
) -> None:
    settings = settings_of(candidates_from=source, epochs=15, refresh=3)
    watched = Watched(tmp_path / "run")
    trained = settings.run(corpus, encoder, watched.context())

    def neighbours_first(tuned: Encoder) -> float:
        model = open_encoder(tuned, Machine(device="cpu"))
        with torch.no_grad():
            vectors = model.embed(model.tokens(model.tokenize(corpus.texts)))
        units = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
        nearest = (units @ units.T).fill_diagonal_(-2).topk(3, dim=1).indices
        return float((nearest % CLUSTERS == (torch.arange(ITEMS) % CLUSTERS).unsqueeze(1)).float().mean())

    assert neighbours_first(trained) > neighbours_first(encoder) + 0.25
    assert float(watched.notes["moved"]) > 0.01 and float(watched.notes["lever"]) > 0.5
    assert -1 <= float(watched.notes["agreement"]) <= 1
    assert {"spread_within", "spread_between", "shift"} <= watched.ticks[-1].values.keys()


def test_rankings_hold_what_they_say(corpus: Corpus) -> None:
    pairs = cooccurrence(corpus.training, ITEMS)
    drawn = draw_candidates(pairs, 1, 6, seed=0)
    groups = np.array([3, 0, 11])
    own = drawn.items[groups]
    known = pairs.toarray() > 0
    rankings = {
        "sampled": sampled(drawn, groups),
        "hard": hard(drawn, groups, np.tile(np.arange(ITEMS), (3, 1))),
        "batch": of_batch(drawn, groups, np.random.default_rng(1)),
        "catalogue": of_catalogue(drawn, groups),
    }
    for name, ranking in rankings.items():
        ranked = ranking.items[ranking.columns]
        assert not (ranked == own[:, None]).any(), name
        np.testing.assert_allclose(ranking.shares.sum(1), 1)
        positive = ranking.shares > 0
        assert known[own[:, None].repeat(ranked.shape[1], 1), ranked][positive].all(), name
        assert not known[own[:, None].repeat(ranked.shape[1], 1), ranked][~positive].any(), name
    assert rankings["catalogue"].columns.shape == (3, ITEMS - 1)
    assert (rankings["catalogue"].shares > 0).sum() == known[own].sum()
    # The nearest strangers, in their order.
    for row, item in zip(rankings["hard"].items[rankings["hard"].columns], own, strict=True):
        strangers = [other for other in range(ITEMS) if not known[item, other] and other != item]
        assert set(row[1:]) == set(strangers[:5])


def test_neighbours_are_drawn_by_how_often_they_co_occur() -> None:
    from scipy.sparse import csr_array

    pairs = csr_array(np.array([[0, 3, 0, 1], [3, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]))
    draw = np.random.default_rng(0)
    times = np.bincount([draw_neighbour(pairs, 0, draw) for _ in range(4000)], minlength=4)
    assert times[0] == times[2] == 0
    assert abs(times[1] / 4000 - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5


def test_the_pathwise_gradient_is_that_of_finite_differences(corpus: Corpus, encoder: Encoder) -> None:
    model = open_encoder(encoder, Machine(device="cpu"))
    assert model.reasoner is not None
    model.reasoner.requires_grad_(True)
    learner = Learner(model, settings_of(group=3, rollouts_per_step=12, noise=0.3))
    prefix = model.prefix(model.tokens(model.tokenize(corpus.texts[:4])))
    noise = learner.noise(4, torch.Generator().manual_seed(0)).flatten(0, 1)
    torch.manual_seed(1)
    judge = Judge.of(learner.settings, torch.randn(4, 10, 32), torch.eye(10)[:1].expand(4, -1))
    # The ruler of the softmax belongs to the clean scores and carries no gradient, so it is held still here too.
    judge = Judge(_Plain(), judge.similarity, judge.table, judge.columns, judge.shares, judge.centre)

    def loss() -> torch.Tensor:
        return next(learner.losses(learner.sample(prefix, noise, judge)))[0]

    loss().backward()
    weight = model.reasoner.value.weight
    assert weight.grad is not None
    # Along the gradient the difference is large enough for single precision.
    slope, step = float(weight.grad.norm()), 0.02
    direction = weight.grad / slope
    weight.data += step * direction
    above = float(loss())
    weight.data -= 2 * step * direction
    below = float(loss())
    assert (above - below) / (2 * step) == pytest.approx(slope, rel=2e-2)
    assert abs(slope) > 1e-6


class _Plain:
    """A smooth reward without a ruler."""

    def reward(self, scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return (weights * scores.log_softmax(-1)).sum(-1)


def test_a_reward_of_ranks_has_no_path_for_a_gradient(corpus: Corpus, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a smooth reward"):
        settings_of(reward="ndcg", steps=1).run(corpus, encoder, Watched(tmp_path / "run").context())


def test_antithetic_noise_comes_in_pairs(corpus: Corpus, encoder: Encoder) -> None:
    learner = Learner(
        open_encoder(encoder, Machine(device="cpu")), settings_of(antithetic=True, group=5, rollouts_per_step=10)
    )
    noise = learner.noise(2, torch.Generator().manual_seed(0))
    assert torch.equal(noise[:, 2], -noise[:, 1]) and torch.equal(noise[:, 4], -noise[:, 3])
    assert not noise[:, 0].any() and noise[:, 1].any() and not torch.equal(noise[:, 3], noise[:, 1])
    with pytest.raises(RecipeError, match="odd"):
        build("step", {"use": "reinforce", "antithetic": True, "group": 8})


def test_rewards_against_a_catalogue_do_not_depend_on_how_many_groups_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    table, vectors = torch.randn(50, 8), torch.randn(6, 3, 8)
    shares = torch.zeros(6, 49)
    shares[:, 4] = 1
    judge = Judge(settings_of().reward, "centred-cosine", table, torch.arange(49).expand(6, -1), shares, table.mean(0))
    whole = judge.rewards(vectors)
    monkeypatch.setattr(crrl, "_SCORES_AT_ONCE", 1)
    torch.testing.assert_close(judge.rewards(vectors), whole)
    moved = Judge(judge.reward, judge.similarity, 3 * table + 7, judge.columns, shares, 3 * table.mean(0) + 7)
    torch.testing.assert_close(moved.rewards(3 * vectors + 7), whole, rtol=1e-4, atol=1e-4)

    # The share of strangers above the neighbour, counted one by one.
    clean = vectors[:, 0]
    cosines = torch.cosine_similarity((clean - table.mean(0)).unsqueeze(1), table[:49] - table.mean(0), dim=-1)
    shares[:, 7] = 0.5
    above = [sum(row[other] > row[4] for other in range(49) if other not in (4, 7)) / 47 for row in cosines.tolist()]
    assert judge.percentiles(clean).tolist() == pytest.approx(above)


def test_under_mean_pooling_a_warning_says_that_the_thought_has_no_lever(corpus: Corpus, tmp_path: Path) -> None:
    long = Corpus(**{**vars(corpus), "texts": tuple(f"{text}{'; note is grape' * 60}" for text in corpus.texts)})
    notes = {}
    for pooling in ("mean", "text-and-thought"):
        table = {"use": "llm", "backbone": {"use": "tiny", "hidden": 32, "vocabulary": 300}, "pooling": pooling}
        tuned = build("step", table).run(long, Watched(tmp_path / pooling).context())  # type: ignore[attr-defined]
        watched = Watched(tmp_path / f"run-{pooling}")
        settings_of(steps=1).run(long, tuned, watched.context())
        notes[pooling] = watched.notes
    assert float(notes["mean"]["lever"]) < 0.01 < 0.1 < float(notes["text-and-thought"]["lever"])
    assert (
        "text-and-thought" in str(notes["mean"]["warning: lever"]) and "warning: lever" not in notes["text-and-thought"]
    )
