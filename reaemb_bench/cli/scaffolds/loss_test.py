"""The loss says which views agree."""

import torch

from reaemb_bench.cli.scaffolds.loss import Example


def test_views_that_agree_cost_less_than_views_that_do_not() -> None:
    """Views of the same items, in the same order, cost less than views in another."""
    views, temperature = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.1)
    assert Example().loss(views, views, temperature) < Example().loss(views, views.flip(0), temperature)
