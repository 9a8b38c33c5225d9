"""The pooling reads real tokens alone."""

import torch

from reaemb_bench.cli.scaffolds.pooling import Example


def test_padding_leaves_no_trace() -> None:
    """What stands at padding does not matter."""
    states, mask = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([[0, 1, 1, 1, 1]])
    changed = states.clone()
    changed[:, 0] = 99.0
    assert torch.equal(Example().pool(states, mask, 1), Example().pool(changed, mask, 1))
