"""Advantages: golden values, and what the group-relative ones promise."""

import pytest
import torch

from reaemb_bench.rl.advantages import BatchBaselinePaper, GroupClean, GroupMean, LeaveOneOut

REWARDS = torch.tensor([[0.2, 0.4, 0.6, 0.4], [0.9, 0.9, 0.9, 0.9]])
RELATIVE = [made(normalise=normalise) for made in (GroupMean, GroupClean, LeaveOneOut) for normalise in (True, False)]


def test_plain_advantages_have_the_values_of_their_formulas() -> None:
    for advantage, expected in (
        (GroupMean(normalise=False), [-0.2, 0.0, 0.2, 0.0]),
        (GroupClean(normalise=False), [0.0, 0.2, 0.4, 0.2]),
        (LeaveOneOut(normalise=False), [-0.8 / 3, 0.0, 0.8 / 3, 0.0]),
    ):
        torch.testing.assert_close(advantage.advantage(REWARDS)[0], torch.tensor(expected))


def test_normalised_advantages_do_not_depend_on_the_size_of_rewards() -> None:
    for made in (GroupMean, GroupClean, LeaveOneOut):
        advantage = made(normalise=True)
        torch.testing.assert_close(
            advantage.advantage(100 * REWARDS), advantage.advantage(REWARDS), rtol=1e-4, atol=1e-5
        )
    spread = GroupMean(normalise=True).advantage(REWARDS)[0].std()
    assert spread.item() == pytest.approx(1, abs=1e-4)


def test_the_papers_advantage_has_one_baseline_and_one_scale_for_the_batch() -> None:
    above = REWARDS - 0.55
    expected = above / (above.square().sum().sqrt() + 1e-6)
    torch.testing.assert_close(BatchBaselinePaper().advantage(REWARDS), expected)


@pytest.mark.parametrize("advantage", RELATIVE, ids=repr)
@pytest.mark.parametrize("reward", [0.1, 1 / 3, -2.7182818, 0.0])
def test_a_group_of_equal_rewards_gives_exactly_zero(advantage: GroupMean, reward: float) -> None:
    assert (advantage.advantage(torch.full((3, 7), reward)) == 0).all()


def test_a_group_of_equal_rewards_still_pushes_in_the_papers_advantage() -> None:
    assert (BatchBaselinePaper().advantage(REWARDS)[1] != 0).all()


@pytest.mark.parametrize("advantage", RELATIVE, ids=repr)
def test_groups_do_not_meet(advantage: GroupMean) -> None:
    rewards = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    together = advantage.advantage(rewards)
    for place in range(4):
        torch.testing.assert_close(together[place : place + 1], advantage.advantage(rewards[place : place + 1]))


def test_leave_one_out_is_the_group_mean_up_to_a_factor() -> None:
    rewards = torch.rand(3, 8, generator=torch.Generator().manual_seed(1))
    mean = GroupMean(normalise=False).advantage(rewards)
    torch.testing.assert_close(LeaveOneOut(normalise=False).advantage(rewards), mean * 8 / 7)
