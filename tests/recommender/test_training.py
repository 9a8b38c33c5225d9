"""Training a recommender: batches, negatives, the learned order, early stopping, and what it may see."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaemb_bench.core.artifacts import Corpus, Ranker, Sequences, ValidationTargets, Vectors
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.recommender.fit import NegativeSampler, Train, TrainIds, rising
from reaemb_bench.recommender.heads.sasrec import SASRec
from reaemb_bench.recommender.packing import Examples, next_items
from reaemb_bench.recommender.score import open_ranker

ITEMS = 12
MACHINE = Machine(device="cpu")
ROWS = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=9), min_size=1, max_size=8)


def sequences(rows: list[list[int]]) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Sequences(np.array([item for row in rows for item in row], dtype=np.int32), offsets)


def cyclic(users: int = 60) -> tuple[Corpus, ValidationTargets]:
    """Users who walk around a circle of items: the next item is always known."""
    starts = np.arange(users) % ITEMS
    # Lengths differ, so that the position at which the longest history ends is trained by nobody but few need it.
    lengths = 3 + np.arange(users) % 5
    rows = [
        [int((start + step) % ITEMS) for step in range(length)] for start, length in zip(starts, lengths, strict=True)
    ]
    names = tuple(f"item {place}" for place in range(ITEMS))
    corpus = Corpus("circle", sequences(rows), names, tuple(map(str, range(users))), "", names, names)
    everyone = np.arange(users, dtype=np.int64)
    targets = ((starts + lengths) % ITEMS).astype(np.int32)
    return corpus, ValidationTargets(
        everyone, targets, np.tile((targets[:, None] + 1 + np.arange(3)) % ITEMS, 1).astype(np.int32)
    )


def context(tmp_path: Path, seed: int = 1, ticks: list[Progress] | None = None) -> Context:
    seen = [] if ticks is None else ticks
    return Context(seed, MACHINE, seen.append, lambda facts: None, tmp_path)


@given(ROWS, st.integers(0, 99))
def test_negatives_are_never_items_of_the_user(rows: list[list[int]], seed: int) -> None:
    owners = np.repeat(np.arange(len(rows)), 7)
    drawn = NegativeSampler.from_sequences(sequences(rows), ITEMS).draw(owners, 2, np.random.default_rng(seed))
    for owner, pair in zip(owners, drawn, strict=True):
        if len(set(rows[owner])) < ITEMS:
            assert not set(pair.tolist()) & set(rows[owner])


HEADS = {
    "sasrec": {"use": "sasrec", "hidden": 16, "max_length": 8, "dropout": 0.0},
    "gru4rec": {"use": "gru4rec", "hidden": 16, "max_length": 8, "dropout": 0.0},
    "bert4rec": {"use": "bert4rec", "hidden": 16, "max_length": 9, "dropout": 0.0, "mask_probability": 0.5},
    "esasrec": {"use": "esasrec", "hidden": 16, "max_length": 8, "dropout": 0.0},
    "hstu": {"use": "hstu", "hidden": 16, "max_length": 8, "dropout": 0.0},
}
OBJECTIVES = [
    "cross-entropy",
    {"use": "bce", "negatives": 3},
    {"use": "calibrated-bce", "negatives": 3},
    {"use": "sampled-softmax", "negatives": 5},
    {"use": "sampled-softmax", "negatives": 5, "corrected": False},
]


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("table", "objective"),
    [("ids", objective) for objective in OBJECTIVES]
    + [(table, "cross-entropy") for table in ("frozen", "ids-and-frozen", "initialised")],
)
def test_every_head_table_and_objective_learns_the_circle(
    tmp_path: Path, head: str, table: str, objective: object
) -> None:
    corpus, validation_targets = cyclic()
    settings = {
        "head": HEADS[head],
        "objective": objective,
        "items": table,
        "epochs": 60,
        "patience": 60,
        "learning_rate": 1e-2,
        "batch_size": 16,
    }
    if table == "ids":
        ranker = TrainIds.model_validate(settings).run(corpus, validation_targets, context(tmp_path))
    else:
        vectors = Vectors(np.random.default_rng(0).normal(size=(ITEMS, 16)).astype(np.float32))
        ranker = Train.model_validate(settings).run(corpus, validation_targets, vectors, context(tmp_path))
    scores = open_ranker(ranker, MACHINE).scores(corpus.training)
    scores[corpus.training.owners, corpus.training.items] = -np.inf
    usual = corpus.training.lengths < 7
    assert (scores.argmax(axis=1) == validation_targets.targets)[usual].mean() > 0.8


def test_training_twice_gives_the_same_bits(tmp_path: Path) -> None:
    corpus, validation_targets = cyclic()
    step = TrainIds.model_validate({"head": {"use": "sasrec", "hidden": 8, "dropout": 0.3}, "epochs": 3})
    first, second = (step.run(corpus, validation_targets, context(tmp_path)) for _ in range(2))
    other = step.run(corpus, validation_targets, context(tmp_path, seed=2))
    assert all(np.array_equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert any(not np.array_equal(first.tensors[name], other.tensors[name]) for name in first.tensors)


def test_training_stops_early_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    corpus, validation_targets = cyclic()
    ticks: list[Progress] = []
    step = TrainIds.model_validate(
        {"head": {"use": "sasrec", "hidden": 16}, "epochs": 100, "patience": 3, "trend": False}
    )
    ranker = step.run(corpus, validation_targets, context(tmp_path, ticks=ticks))
    curve = [tick.values["validation/ndcg@10"] for tick in ticks]
    assert len(curve) < 100
    assert int(np.argmax(curve)) == len(curve) - 1 - 3
    assert "vectors" in ranker.tensors


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_noise_does_not_end_a_rise_but_a_plateau_or_a_fall_does(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(60, 60))

    def trained_on(slope: float, trend: bool) -> float:
        """The share of noisy curves after whose 60 epochs training would go on."""
        ended = 0
        for curve in slope * np.arange(60) + noise:
            best = 0
            for epoch, value in enumerate(curve):
                best = epoch if value > curve[best] else best
                if epoch - best >= 8 and not (trend and rising(curve[: epoch + 1].tolist(), 8)):
                    ended += 1
                    break
        return 1 - ended / len(noise)

    # An epoch adds a fifth of the spread of the noise.
    assert trained_on(0.2, trend=False) < 0.65 < 0.8 < trained_on(0.2, trend=True)
    assert trained_on(0.0, trend=True) < 0.1
    assert trained_on(-0.2, trend=True) == 0


def test_training_goes_on_while_the_curve_rises_past_a_lucky_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, validation_targets = cyclic()
    curve = [0.1, 0.2, 0.9, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95, *[0.9] * 20]
    # Of the pairs of epochs 8 to 16, 15 rise and 6 fall; their difference has a standard error of 9.6.
    for trend, epochs in ((False, 6), (True, 16)):
        values = iter(curve)
        monkeypatch.setattr("reaemb_bench.recommender.fit.ndcg", lambda *ranks: np.array([next(values)]))  # noqa: B023
        ticks: list[Progress] = []
        step = TrainIds.model_validate({"head": HEADS["sasrec"], "patience": 3, "trend": trend})
        step.run(corpus, validation_targets, context(tmp_path, ticks=ticks))
        assert len(ticks) == epochs


def test_a_saved_ranker_scores_as_before(tmp_path: Path) -> None:
    corpus, validation_targets = cyclic()
    ranker = TrainIds.model_validate({"head": {"use": "sasrec", "hidden": 8}, "epochs": 1}).run(
        corpus, validation_targets, context(tmp_path)
    )
    folder = tmp_path / "ranker"
    folder.mkdir()
    ranker.save(folder)
    again = open_ranker(Ranker.load(folder), MACHINE).scores(corpus.training)
    assert np.array_equal(again, open_ranker(ranker, MACHINE).scores(corpus.training))


@pytest.mark.parametrize(
    ("table", "width", "message"),
    [({"use": "frozen", "adapter": "none"}, 10, "head's width"), ("frozen", None, "for 12 items")],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, table: object, width: int | None, message: str) -> None:
    corpus, validation_targets = cyclic()
    vectors = Vectors(np.zeros((ITEMS if width else 3, width or 4), dtype=np.float32))
    step = Train.model_validate({"items": table, "head": {"use": "sasrec", "hidden": 16}})
    with pytest.raises(UserError, match=message):
        step.run(corpus, validation_targets, vectors, context(tmp_path))


def test_training_that_nothing_could_stop_is_refused(tmp_path: Path) -> None:
    corpus, validation_targets = cyclic()
    nobody = ValidationTargets(
        validation_targets.users[:0], validation_targets.targets[:0], validation_targets.candidates[:0]
    )
    step = TrainIds.model_validate({"head": {"use": "sasrec", "hidden": 8}, "epochs": 1})
    with pytest.raises(UserError, match=r"no user has a validation target.*choose another prepare\.split"):
        step.run(corpus, nobody, context(tmp_path))


def test_a_falling_learning_rate_takes_shorter_steps_from_the_second_on(tmp_path: Path) -> None:
    corpus, validation_targets = cyclic()
    curves = []
    for decay, epochs in ((False, 4), (True, 4), (True, 4000)):
        ticks: list[Progress] = []
        settings = {"head": HEADS["sasrec"], "patience": 1, "batch_size": 60, "decay": decay, "epochs": epochs}
        TrainIds.model_validate(settings).run(corpus, validation_targets, context(tmp_path, ticks=ticks))
        curves.append([tick.values["loss"] for tick in ticks[:3]])
    steady, falling, barely_falling = curves
    # One step an epoch, whose loss is that before the step: the first step is as long, the second shorter.
    assert falling[:2] == steady[:2]
    assert falling[2] > steady[2]
    assert barely_falling[2] == pytest.approx(steady[2], rel=1e-3)


@pytest.mark.parametrize("histories", ["newest", "windows"])
@pytest.mark.parametrize("head", HEADS)
def test_what_histories_are_too_long_for_is_trained_on_in_windows_or_counted(
    tmp_path: Path, head: str, histories: str
) -> None:
    corpus, validation_targets = cyclic()
    # Item 11 is only at the beginning of a long history, and user 1 has nothing else than one interaction.
    rows = [[11, *range(10), 0], [3], *([0, 1, 2] for _ in range(58))]
    corpus = replace(corpus, training=sequences(rows))
    facts: dict[str, object] = {}
    step = TrainIds.model_validate({"head": HEADS[head], "epochs": 1, "histories": histories})
    step.run(corpus, validation_targets, replace(context(tmp_path), note=facts.update))
    counted = {name: facts[name] for name in facts if "not_trained_on" in name or name == "training_interactions"}
    assert counted == {
        "training_interactions": 12 + 1 + 3 * 58,
        "interactions_not_trained_on": 1 + (12 - 9 if histories == "newest" else 0),
        "items_not_trained_on": int(histories == "newest"),
        "users_not_trained_on": 1,
    }


@pytest.mark.parametrize(("histories", "least_recent"), [("newest", 4), ("windows", 1)])
def test_an_epoch_predicts_each_interaction_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, histories: str, least_recent: int
) -> None:
    corpus, validation_targets = cyclic(users=3)
    corpus = replace(corpus, training=sequences([list(range(12)), [3, 4], [11] * 10]))
    predicted: list[int] = []

    def spied(self: SASRec, batch: Sequences, items: int, generator: np.random.Generator) -> Examples:
        examples = next_items(batch, self.max_length, last_only=False)
        predicted.extend(examples.targets.tolist())
        return examples

    monkeypatch.setattr(SASRec, "training_examples", spied)
    step = TrainIds.model_validate({"head": HEADS["sasrec"], "epochs": 1, "histories": histories})
    step.run(corpus, validation_targets, context(tmp_path))
    # Training also looks at examples of an item that no catalogue has, to learn how much a head reads.
    own = sorted(item for item in predicted if item < ITEMS)
    assert own == sorted([*range(least_recent, 12), 4, *[11] * (8 if histories == "newest" else 9)])


def test_histories_that_fit_give_the_same_bits_in_windows(tmp_path: Path) -> None:
    corpus, validation_targets = cyclic()
    rankers = []
    for histories in ("newest", "windows"):
        step = TrainIds.model_validate({"head": HEADS["sasrec"], "epochs": 2, "histories": histories})
        rankers.append(step.run(corpus, validation_targets, context(tmp_path)).tensors)
    assert all(np.array_equal(rankers[0][name], rankers[1][name]) for name in rankers[0])


@pytest.mark.parametrize(("objective", "moves"), [("cross-entropy", True), ("trained-cross-entropy", False)])
def test_the_loss_over_trained_items_leaves_an_item_that_nobody_has_where_it_was(
    objective: str, moves: bool, tmp_path: Path
) -> None:
    corpus, targets = cyclic()
    names = tuple(f"item {number}" for number in range(ITEMS + 1))
    # One item more, whose number is below all that are trained.
    shifted = replace(corpus.training, items=corpus.training.items + 1)
    corpus = replace(corpus, training=shifted, item_keys=names, texts=names, titles=names)
    targets = replace(targets, targets=targets.targets + 1, candidates=targets.candidates + 1)
    rows, ranks = [], []
    for rate in (1e-2, 2e-2):
        step = TrainIds(head=HEADS["sasrec"], objective=objective, epochs=12, learning_rate=rate)  # type: ignore[arg-type]
        facts: dict[str, float | int | str] = {}
        rows.append(step.run(corpus, targets, replace(context(tmp_path), note=facts.update)).tensors["vectors"])
        ranks.append(facts["best_validation_ndcg"])
    assert np.array_equal(rows[0][0], rows[1][0]) != moves
    assert not np.array_equal(rows[0][1], rows[1][1])
    assert min(map(float, ranks)) > 0.5
