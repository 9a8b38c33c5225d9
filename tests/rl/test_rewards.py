"""Rewards: golden values, invariances, and which of them notice small noise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reaemb_bench.rl.rewards.ranked import NDCG, ReciprocalLogRank, ranks
from reaemb_bench.rl.rewards.softmax_likelihood import SoftmaxLikelihood

EVERY = [ReciprocalLogRank(), NDCG(), SoftmaxLikelihood()]


def one_positive(candidates: int) -> torch.Tensor:
    weights = torch.zeros(1, 1, candidates)
    weights[..., 0] = 1
    return weights


def test_ranks_count_from_0_by_falling_score_and_share_ties() -> None:
    assert ranks(torch.tensor([0.1, 0.9, 0.5])).tolist() == [2, 0, 1]
    assert ranks(torch.tensor([1.0, 2.0, 1.0, 1.0])).tolist() == [2, 0, 2, 2]


def test_rank_rewards_have_the_values_of_their_formulas() -> None:
    scores = torch.tensor([[[0.5, 0.9, 0.1, 0.2]]])
    assert ReciprocalLogRank().reward(scores, one_positive(4)).item() == pytest.approx(1 / (1 + math.log2(3)))
    assert NDCG().reward(scores, one_positive(4)).item() == pytest.approx(1 / math.log2(3))
    weights = torch.tensor([[[0.75, 0.0, 0.25, 0.0]]])
    expected = 0.75 / (1 + math.log2(3)) + 0.25 / (1 + math.log2(5))
    assert ReciprocalLogRank().reward(scores, weights).item() == pytest.approx(expected)
    ideal = 0.75 + 0.25 / math.log2(3)
    expected = (0.75 / math.log2(3) + 0.25 / math.log2(5)) / ideal
    assert NDCG().reward(scores, weights).item() == pytest.approx(expected)


def test_ndcg_of_a_perfect_ranking_is_1() -> None:
    weights = torch.tensor([[[0.5, 0.3, 0.2, 0.0, 0.0]]])
    assert NDCG().reward(torch.tensor([[[5.0, 4.0, 3.0, 2.0, 1.0]]]), weights).item() == pytest.approx(1)


def test_softmax_likelihood_is_minus_info_nce_on_standardised_scores() -> None:
    scores = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    logits = scores / (0.5 * scores[:, :1].std(dim=-1, keepdim=True, correction=0))
    expected = -torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.zeros(12, dtype=torch.long), reduction="none"
    )
    made = SoftmaxLikelihood(temperature=0.5).reward(scores, one_positive(6))
    torch.testing.assert_close(made.flatten(), expected)


@pytest.mark.parametrize("reward", EVERY, ids=lambda each: type(each).__name__)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-3, 3))
def test_scaling_and_shifting_all_scores_changes_no_reward(reward: NDCG, scale: float, shift: float) -> None:
    scores = torch.linspace(-1, 1, 24, dtype=torch.float64)[
        torch.randperm(24, generator=torch.Generator().manual_seed(1))
    ]
    scores = scores.view(2, 3, 4)
    changed = reward.reward(scale * (scores + shift), one_positive(4))
    torch.testing.assert_close(changed, reward.reward(scores, one_positive(4)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reward", EVERY, ids=lambda each: type(each).__name__)
def test_raising_the_positive_never_lowers_the_reward(reward: NDCG) -> None:
    others = torch.randn(9, generator=torch.Generator().manual_seed(2))
    heights = torch.linspace(-3, 3, 40)
    scores = torch.cat([heights.unsqueeze(1), others.expand(40, 9)], dim=1).unsqueeze(0)
    rewards = reward.reward(scores, one_positive(10))[0]
    assert (rewards.diff() >= 0).all()
    assert rewards[-1] > rewards[0]


@pytest.mark.parametrize("reward", EVERY, ids=lambda each: type(each).__name__)
def test_scores_that_are_all_equal_are_rewarded_alike_and_finitely(reward: NDCG) -> None:
    rewards = reward.reward(torch.ones(2, 3, 5), one_positive(5))
    assert rewards.isfinite().all()
    assert rewards.unique().numel() == 1


def test_only_the_smooth_reward_hears_small_noise() -> None:
    generator = torch.Generator().manual_seed(3)
    items = torch.randn(200, 1, 32, generator=generator)
    candidates = torch.randn(200, 10, 32, generator=generator)
    rollouts = items + 0.01 * torch.randn(200, 8, 32, generator=generator)
    scores = rollouts @ candidates.transpose(1, 2)

    def alive(reward: NDCG | ReciprocalLogRank | SoftmaxLikelihood) -> float:
        rewards = reward.reward(scores, one_positive(10))
        return (rewards.amax(1) > rewards.amin(1)).float().mean().item()

    assert alive(SoftmaxLikelihood()) == 1
    assert alive(NDCG()) < 0.2
    assert alive(ReciprocalLogRank()) < 0.2
