"""The reward knows a better rollout."""

import torch

from reaemb_bench.cli.scaffolds.reward import Example


def test_a_rollout_that_ranks_the_positive_higher_earns_more() -> None:
    """The positive's rank decides."""
    scores, weights = torch.tensor([[[3.0, 1.0, 2.0], [1.0, 3.0, 2.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    better, worse = Example().reward(scores, weights)[0]
    assert better > worse
