"""The advantage compares within a group."""

import torch

from reaemb_bench.cli.scaffolds.advantage import Example


def test_equal_rewards_push_nowhere_and_higher_ones_push_more() -> None:
    """Nothing to learn from where all rewards are equal."""
    equal, rising = Example().advantage(torch.tensor([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]]))
    assert not equal.any()
    assert rising[0] < rising[1] < rising[2]
