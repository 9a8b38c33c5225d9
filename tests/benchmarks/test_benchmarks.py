"""The plain loop that benchmarks compare with is the real thing: it gives the released code's numbers, and it runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.recommenders.data import simulated, synthetic
from benchmarks.recommenders.plain import Plain, Settings
from benchmarks.recommenders.plain_data import Candidates, Histories, MaskedItems, NextItems
from benchmarks.recommenders.plain_networks import HEADS, Head, Network, build
from benchmarks.recommenders.sides import SIDES, Side, runner

FIXTURES = Path(__file__).parents[1] / "fixtures" / "fidelity"
LENGTH = 12


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps this small cost more in waiting for a second thread than in work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(head: Head) -> tuple[Network, dict[str, Tensor]]:
    """A plain network with the fixture's weights, and the fixture."""
    from safetensors.torch import load_file

    fixture = load_file(FIXTURES / f"srs_{head}.safetensors")
    network = build(head, items=30, hidden=16, max_length=LENGTH, dropout=0.0)
    weights = {name.removeprefix("weight."): value for name, value in fixture.items() if name.startswith("weight.")}
    if "pos_emb.weight" in weights:
        # The fixture carries positions far beyond those that can be read.
        weights["pos_emb.weight"] = weights["pos_emb.weight"][: LENGTH + 2]
    network.load_state_dict(weights)
    return cast(Network, network.eval()), fixture


@pytest.mark.parametrize("head", HEADS)
def test_the_plain_networks_give_the_released_codes_loss_and_scores(head: Head) -> None:
    network, fixture = load(head)
    read = fixture["masked_sequence" if head == "bert4rec" else "sequence"]
    loss = network.loss(read, fixture["positions"], fixture["positive"], fixture["negative"])
    torch.testing.assert_close(loss, fixture["loss"], atol=1e-5, rtol=0)
    scores = network.scores(fixture["sequence"], fixture["positions"], fixture["candidates"])
    torch.testing.assert_close(scores, fixture["candidate_scores"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", HEADS)
def test_the_plain_loop_trains_and_ranks(head: Head) -> None:
    corpus, _, test_targets = simulated(users=40, items=30, mean_length=8)
    settings = Settings(max_length=LENGTH, batch_size=10, hidden=16, dropout=0.0, learning_rate=1e-2, sample=5)
    plain = Plain(head, corpus, settings)
    assert plain.rows == (80 if head == "bert4rec" else 40)
    losses = [np.mean(plain.train()) for _ in range(10)]
    assert losses[-1] < 0.9 * losses[0]
    ranks = plain.evaluate(test_targets)
    assert ranks.shape == test_targets.users.shape
    assert ranks.min() >= 0
    assert ranks.max() <= 5


def histories() -> Histories:
    sequences = [[3, 1, 4, 1, 5], [2, 7]]
    return Histories(sequences, [set(each) for each in sequences], items=9, max_length=4)


def test_a_row_holds_the_last_items_each_with_the_next_one_and_an_untouched_negative() -> None:
    sequence, positions, positive, negative = (np.asarray(part).tolist() for part in NextItems(histories())[1])
    assert (sequence, positions, positive) == ([0, 0, 0, 2], [0, 0, 0, 1], [0, 0, 0, 7])
    assert negative[:3] == [0, 0, 0]
    assert 1 <= negative[3] <= 9
    sequence, positions, positive, negative = (np.asarray(part).tolist() for part in NextItems(histories())[0])
    assert (sequence, positions, positive) == ([3, 1, 4, 1], [1, 2, 3, 4], [1, 4, 1, 5])
    assert not {*negative} & {1, 3, 4, 5}


def test_the_second_copy_of_a_sequence_masks_its_last_item_alone() -> None:
    rows = MaskedItems(histories())
    sequence, _, positive, _ = (np.asarray(part).tolist() for part in rows[2])
    assert sequence == [1, 4, 1, 10]
    assert positive == [0, 0, 0, 5]


def test_candidates_hold_the_target_first_and_nothing_the_user_touched() -> None:
    _, _, candidates = Candidates(histories(), targets=[6, 8], sample=20)[0]
    assert np.asarray(candidates)[0] == 6
    assert not {*np.asarray(candidates)[1:].tolist()} & {1, 3, 4, 5}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("head", HEADS)
def test_both_sides_run_and_say_how_much_of_the_work_they_did(head: Head, side: Side) -> None:
    data = simulated(users=40, items=30, mean_length=8)
    settings = Settings(max_length=LENGTH, batch_size=10, hidden=16, sample=5)
    made = runner(side, head, data, settings, steps=2, users=10)
    rows = 80 if head == "bert4rec" else 40
    assert made.train().share == (20 / rows if side == "plain" else 1)
    assert made.evaluate().share == (10 / 40 if side == "plain" else 1)


def test_synthetic_histories_leave_the_last_two_items_out_of_training() -> None:
    corpus, validation_targets, test_targets = synthetic(interactions=400, items=50)
    for user in range(corpus.users):
        training, history = corpus.training.of(user), test_targets.histories.of(user)
        assert len(training) >= 3
        assert history.tolist() == [*training.tolist(), validation_targets.targets[user]]
        assert not {*test_targets.candidates[user].tolist()} & {*history.tolist(), int(test_targets.targets[user])}
