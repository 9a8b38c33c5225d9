"""Alignment of vectors: what is planted is found, chance is chance, and nothing depends on blocks or units."""

from pathlib import Path

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Alignment, Corpus, Sequences, ValidationTargets, Vectors, write_shard
from reaemb_bench.core.registry import build
from reaemb_bench.evaluation import alignment
from reaemb_bench.evaluation.alignment import measure_alignment
from tests.helpers.encoders import context

ITEMS, GROUPS, USERS = 120, 12, 300


@pytest.fixture(scope="module")
def shop() -> tuple[Corpus, ValidationTargets]:
    """Each user buys four items of one group of ten, and then another one of it."""
    draw = np.random.default_rng(0)
    bought = [draw.choice(np.arange(user % GROUPS, ITEMS, GROUPS), 5, replace=False) for user in range(USERS)]
    training = Sequences(np.concatenate([row[:4] for row in bought]).astype(np.int32), np.arange(0, 4 * USERS + 1, 4))
    keys = tuple(map(str, range(ITEMS)))
    corpus = Corpus("groups", training, keys, tuple(map(str, range(USERS))), "", keys, keys)
    last = np.array([row[4] for row in bought], dtype=np.int32)
    return corpus, ValidationTargets(np.arange(USERS), last, np.zeros((USERS, 0), dtype=np.int32))


def vectors(folder: Path, values: np.ndarray) -> Vectors:
    folder.mkdir()
    write_shard(folder / "v.safetensors", values.astype(np.float32), {})
    return Vectors(folder / "v.safetensors")


def planted(strength: float) -> np.ndarray:
    draw = np.random.default_rng(1)
    return strength * draw.normal(size=(GROUPS, 16))[np.arange(ITEMS) % GROUPS] + draw.normal(size=(ITEMS, 16))


def test_vectors_without_structure_give_chance_and_planted_ones_are_found(tmp_path, shop):
    values = {
        name: measure_alignment(vectors(tmp_path / name, planted(strength)), *shop).values
        for name, strength in {"none": 0.0, "some": 0.7, "strong": 20.0}.items()
    }
    for kind in ("train", "validation"):
        chance = values["none"]
        assert abs(chance[f"{kind}_percentile"] - 0.5) < 4 * chance[f"{kind}_percentile_se"] < 0.2
        assert chance[f"{kind}_near"] == pytest.approx(10 / (ITEMS - 1), abs=0.06)
        assert values["strong"][f"{kind}_percentile"] < 9 / ITEMS < values["some"][f"{kind}_percentile"] < 0.45
        assert values["strong"][f"{kind}_near"] == 1.0
    assert values["strong"]["retrieval"] > values["some"]["retrieval"] > values["none"]["retrieval"]


def test_an_item_never_met_in_training_counts_as_unseen(tmp_path, shop):
    corpus, targets = shop
    # Nobody has bought item 0 in training, and users 0 and 12 buy it now: eight pairs, all unseen.
    kept = [np.where(corpus.training.of(user) == 0, 12, corpus.training.of(user)) for user in range(USERS)]
    without = Corpus(
        **{**vars(corpus), "training": Sequences(np.concatenate(kept).astype(np.int32), corpus.training.offsets)}
    )
    last = targets.targets.copy()
    last[last == 0] = 24
    before = measure_alignment(
        vectors(tmp_path / "a", planted(1)), without, ValidationTargets(targets.users, last, targets.candidates)
    )
    last = last.copy()
    last[[0, 12]] = 0
    after = measure_alignment(
        vectors(tmp_path / "b", planted(1)), without, ValidationTargets(targets.users, last, targets.candidates)
    )
    different = len(set(kept[0])) + len(set(kept[12]))
    assert after.values["unseen_pairs"] - before.values["unseen_pairs"] == different


def test_neither_units_nor_a_common_vector_nor_blocks_matter(tmp_path, shop, monkeypatch):
    plain = measure_alignment(vectors(tmp_path / "a", planted(1)), *shop).values
    monkeypatch.setattr(alignment, "_ANCHORS_AT_ONCE", 7)
    moved = measure_alignment(vectors(tmp_path / "b", 3 * planted(1) + 5), *shop).values
    for name in plain.keys() - {"mean_cosine"}:
        assert moved[name] == pytest.approx(plain[name], rel=1e-3, abs=1e-3), name
    assert moved["mean_cosine"] > 0.5 > plain["mean_cosine"]


def test_a_percentile_is_that_of_a_full_sort(tmp_path, shop):
    corpus, targets = shop
    values = planted(0.5)
    measured = measure_alignment(vectors(tmp_path / "v", values), corpus, targets).values
    units = values - values.mean(0)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    ranks = []
    for user, target in zip(targets.users, targets.targets, strict=True):
        for item in set(corpus.training.of(user).tolist()) - {int(target)}:
            others = [other for other in np.argsort(-(units @ units[item])) if other != item]
            ranks.append(others.index(target))
    assert measured["validation_percentile"] == pytest.approx(np.mean(ranks) / (ITEMS - 2), abs=1e-6)
    assert measured["validation_near"] == pytest.approx((np.array(ranks) < 10).mean(), abs=1e-6)


def test_a_hub_is_seen(tmp_path, shop):
    values = np.random.default_rng(2).normal(size=(ITEMS, 400))
    even = measure_alignment(vectors(tmp_path / "even", values), *shop).values["hubness"]
    # Half of the items share a direction, on which three of them lie exactly: those are nearest to all of that half.
    values[:60] += 0.5
    values[:3] = 0.5
    hubs = measure_alignment(vectors(tmp_path / "hubs", values), *shop).values["hubness"]
    assert even < 0.1 < hubs


def test_all_equal_vectors_are_chance_and_no_error(tmp_path, shop):
    measured = measure_alignment(vectors(tmp_path / "v", np.ones((ITEMS, 4))), *shop).values
    assert measured["validation_percentile"] == pytest.approx(0.5)


def test_the_step_may_see_validation_and_notes_what_it_measured(tmp_path, shop):
    step, facts = build("step", "measure-alignment"), {}
    assert step.data_access == "validation" and not step.leaks
    measured = step.run(*shop, vectors(tmp_path / "v", planted(1)), context(tmp_path / "run", facts=facts))
    assert facts == measured.values
    (tmp_path / "saved").mkdir()
    measured.save(tmp_path / "saved")
    assert Alignment.load(tmp_path / "saved") == measured


@pytest.mark.parametrize("dimensions", [4, 16])
def test_one_linear_map_learns_pairs_that_were_planted(tmp_path, shop, dimensions):
    corpus, targets = shop
    # Groups 2k and 2k + 1 go together, and only a map can know it: their vectors are independent.
    merged = Sequences(
        ((corpus.training.items // 2 * 2 + np.arange(len(corpus.training.items)) % 2) % ITEMS).astype(np.int32),
        corpus.training.offsets,
    )
    corpus = Corpus(**{**vars(corpus), "training": merged})
    start = vectors(tmp_path / "v", planted(2))
    ends = {}
    for steps in (0, 150):
        step = build("step", {"use": "align-linear", "dimensions": dimensions, "steps": steps, "learning_rate": 1e-2})
        mapped = step.run(corpus, start, context(tmp_path / str(steps)))
        assert mapped.width == dimensions
        ends[steps] = measure_alignment(mapped, corpus, targets).values["train_percentile"]
    assert ends[150] < ends[0] - 0.05
