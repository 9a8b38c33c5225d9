"""The objective ranks a target above its negatives."""

import torch

from reaemb_bench.cli.scaffolds.objective import Example


def test_a_target_above_its_negatives_costs_less_than_one_below() -> None:
    """The right order costs less than the wrong one."""
    vectors, outputs = torch.eye(3), torch.tensor([[1.0, 0.0, 0.0]])
    first, second = torch.tensor([0]), torch.tensor([1])
    right = Example().loss(outputs, first, vectors, second.unsqueeze(1))
    wrong = Example().loss(outputs, second, vectors, first.unsqueeze(1))
    assert right < wrong
