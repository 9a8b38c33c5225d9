"""A reward of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaemb_bench import Component

if TYPE_CHECKING:
    from torch import Tensor


class Example(Component):
    """How far the positives' mean score stands above the best negative's: say here what yours rewards."""

    def reward(self, scores: Tensor, weights: Tensor) -> Tensor:
        """scores (groups, G, N), weights (groups, 1, N): shares of the positives, 0 for negatives -> (groups, G)."""
        positives = (scores * weights).sum(-1)
        return positives - scores.masked_fill(weights > 0, float("-inf")).amax(-1)
