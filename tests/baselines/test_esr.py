"""LLM-ESR: two views that read each other, and similar users that teach each other."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Sequences, Vectors
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.reducers import PCA
from tests.helpers.baselines import BASELINES, mixed, part
from tests.helpers.encoders import context, corpus
from tests.helpers.heads import CPU, everywhere, sequences

ITEMS, WIDTH = 20, 8
VIEW = {"use": "sasrec", "hidden": WIDTH, "max_length": 6, "dropout": 0.0}
HEAD = {"use": f"{BASELINES}/llm_esr/component.py:DualView", "view": VIEW}


def network_and_vectors() -> tuple[Any, nn.Module, Tensor]:
    head: Any = build("head", HEAD)
    torch.manual_seed(0)
    return head, head.build(nn.Identity()).eval(), torch.randn(ITEMS, 2 * WIDTH)


def states(network: nn.Module, head: Any, vectors: Tensor, row: list[int]) -> Tensor:
    with torch.no_grad():
        return everywhere(network, head.scoring_input(sequences([row]), ITEMS, CPU), vectors)


def test_the_collaborative_view_starts_at_the_principal_components_and_the_text_stays() -> None:
    given = mixed()
    table = part("item-table", "llm_esr", "DualTable").build(200, 2 * WIDTH, given.values)
    start = PCA(dimensions=WIDTH).reduce(given).values
    made = table()[:, WIDTH:].detach().numpy()
    factor = np.sqrt(WIDTH * np.square(start).mean())
    np.testing.assert_allclose(made, start / factor, atol=1e-5)
    trained = {name for name, value in table.named_parameters() if value.requires_grad}
    assert "collaborative.weight" in trained and not any("vectors" in name for name in trained)


def test_a_later_item_changes_no_earlier_state_of_either_view() -> None:
    head, network, vectors = network_and_vectors()
    first, second = (states(network, head, vectors, row) for row in ([3, 5, 7, 9], [3, 5, 7, 2]))
    torch.testing.assert_close(second[:3], first[:3], atol=1e-6, rtol=0)
    assert (second[3] - first[3]).abs().max() > 1e-3


@pytest.mark.parametrize("changed", [slice(0, WIDTH), slice(WIDTH, None)], ids=["semantic", "collaborative"])
def test_each_view_reads_the_other(changed: slice) -> None:
    head, network, vectors = network_and_vectors()
    other = vectors.clone()
    other[:, changed] = torch.randn(ITEMS, WIDTH)
    moved = (states(network, head, other, [3, 5, 7]) - states(network, head, vectors, [3, 5, 7])).abs()
    assert moved[:, :WIDTH].max() > 1e-4 and moved[:, WIDTH:].max() > 1e-4


def test_both_views_go_through_one_encoder() -> None:
    _, network, _ = network_and_vectors()
    encoders = {name.partition(".")[0] for name in network.state_dict() if ".blocks." in f".{name}"}
    assert encoders == {"encoder"}


def test_batch_mates_change_nothing() -> None:
    head, network, vectors = network_and_vectors()
    rows = [[1], [2, 3, 4], [5, 6, 7, 8, 9], [3, 3]]
    asked = head.scoring_input(sequences(rows), ITEMS, CPU)
    with torch.no_grad():
        together = network(asked, vectors, asked.last)
    alone = torch.stack([states(network, head, vectors, row)[-1] for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_view_that_reads_masks_reads_in_both_directions_and_no_other_item_than_the_mask_asks() -> None:
    head: Any = build("head", {**HEAD, "view": {**VIEW, "use": "bert4rec"}})
    torch.manual_seed(0)
    network, vectors = head.build(nn.Identity()).eval(), torch.randn(ITEMS, 2 * WIDTH)
    first, second = (states(network, head, vectors, row) for row in ([3, 5, 7, 9], [3, 5, 7, 2]))
    assert len(first) == 5, "the mask is a position of its own"
    for view in (slice(0, WIDTH), slice(WIDTH, None)):
        assert (second[:, view] - first[:, view]).abs().amax(dim=1).min() > 1e-4
    # Padding to the length of a batch mate changes nothing.
    rows = [[1], [2, 3, 4]]
    asked = head.scoring_input(sequences(rows), ITEMS, CPU)
    with torch.no_grad():
        together = network(asked, vectors, asked.last)
    alone = torch.stack([states(network, head, vectors, row)[-1] for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "bert4rec", "esasrec", "hstu"])
def test_it_trains_and_scores_under_each_head_with_views_as_wide_as_the_head(name: str, tmp_path: Path) -> None:
    from reaemb_bench.core.artifacts import ValidationTargets
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.recommender.score import open_ranker

    held, kinds = shoppers()
    users = np.arange(5)
    targets = ValidationTargets(users, np.zeros(5, dtype=np.int32), np.zeros((5, 0), dtype=np.int32))
    wide = Vectors(np.hstack([kinds.values, np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)]))
    ranker = step(head={**VIEW, "use": name}, epochs=2).run(held, targets, wide, context(tmp_path))
    assert ranker.tensors["vectors"].shape == (20, 2 * WIDTH)
    scores = open_ranker(ranker, Machine(device="cpu")).scores(held.training)
    assert scores.shape == (6, 20) and scores[:5].std(axis=1).min() > 0


def shoppers() -> tuple[Corpus, Vectors]:
    """Six users of whom 0 and 3, 1 and 4 have items of the same texts; 5 has none."""
    rows = [[0, 1], [4, 5], [8, 9], [2, 3], [6, 7], []]
    drawn = np.repeat(np.eye(5), 4, axis=0) * 5 + np.random.default_rng(0).normal(size=(20, 5)) * 0.01
    held = replace(corpus(20), training=sequences(rows), user_keys=tuple("abcdef"))
    return held, Vectors(drawn.astype(np.float32))


def similar(neighbours: int) -> Any:
    plugin = sys.modules[type(part("item-table", "llm_esr", "DualTable")).__module__]
    return plugin.similar_users(*shoppers(), neighbours)


def test_users_of_similar_texts_find_each_other() -> None:
    nearest = similar(1)[:, 0]
    assert nearest[[0, 3, 1, 4]].tolist() == [3, 0, 4, 1]


def test_nobody_is_similar_to_themselves_nor_to_a_user_without_items() -> None:
    everyone = similar(10)
    assert everyone.shape == (6, 4)
    assert 5 not in everyone
    assert all(user not in row for user, row in enumerate(everyone) if user != 5)


def step(**settings: Any) -> Any:
    table = {"use": f"{BASELINES}/llm_esr/component.py:DualTable"}
    use = f"{BASELINES}/llm_esr/component.py:TrainDistilled"
    return build("step", {"use": use, "head": VIEW, "items": table, **settings})


def test_the_distillation_is_the_distance_to_the_mean_of_the_similar_users_states() -> None:
    head, network, vectors = network_and_vectors()
    held, _ = shoppers()
    taught = np.array([[3, 1], [4, 2], [0, 1], [0, 2], [1, 2], [0, 1]])
    loss = step(weight=0.5).distillation(held, taught)(network, vectors, np.array([0, 4]))
    last = [states(network, head, vectors, held.training.of(user).tolist())[-1] for user in range(5)]
    wanted = [(last[0] - (last[3] + last[1]) / 2), (last[4] - (last[1] + last[2]) / 2)]
    torch.testing.assert_close(loss, 0.5 * torch.stack(wanted).square().mean())


def test_teachers_get_no_gradient() -> None:
    _, network, vectors = network_and_vectors()
    held, _ = shoppers()
    vectors.requires_grad_()
    step().distillation(held, np.array([[3]] * 6))(network, vectors, np.array([0])).backward()
    assert vectors.grad is not None
    touched = set(torch.nonzero(vectors.grad.abs().sum(dim=1)).flatten().tolist())
    assert touched == set(held.training.of(0).tolist())


def test_distillation_brings_similar_users_together(tmp_path: Path) -> None:
    from reaemb_bench.core.artifacts import ValidationTargets
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.recommender.score import open_ranker

    generator = np.random.default_rng(0)
    rows = [generator.integers(4 * kind, 4 * kind + 4, size=6).tolist() for kind in range(5) for _ in range(6)]
    held = replace(corpus(20), training=sequences(rows), user_keys=tuple(f"u{place}" for place in range(30)))
    users = np.arange(30)
    validation_targets = ValidationTargets(users, np.zeros(30, dtype=np.int32), np.zeros((30, 0), dtype=np.int32))
    _, kinds = shoppers()
    wide = Vectors(np.hstack([kinds.values, generator.normal(size=(20, 5)).astype(np.float32)]))
    spread = []
    for weight in (0.0, 30.0):
        ranker = step(weight=weight, epochs=6, batch_size=30, learning_rate=1e-2, neighbours=5).run(
            held, validation_targets, wide, context(tmp_path / str(weight))
        )
        scorer: Any = open_ranker(ranker, Machine(device="cpu"))
        asked = scorer.head.scoring_input(Sequences(held.training.items, held.training.offsets), 20, CPU)
        with torch.no_grad():
            found = scorer.network(asked, scorer.vectors, asked.last).view(5, 6, -1)
        spread.append(float(found.std(dim=1).mean() / found.std()))
    assert spread[1] < 0.8 * spread[0]
