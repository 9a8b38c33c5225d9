"""An advantage of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaemb_bench import Component

if TYPE_CHECKING:
    from torch import Tensor


class Example(Component):
    """Rewards above the median of their group: say here what yours compares with."""

    def advantage(self, rewards: Tensor) -> Tensor:
        """(groups, G), the clean rollout first -> (groups, G)."""
        return rewards - rewards.median(dim=1, keepdim=True).values
