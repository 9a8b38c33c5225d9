"""Advantages of rollouts from the rewards of their groups, (groups, G) with the clean rollout first.

The group-relative ones compare a rollout with the other rollouts of the same item, so a group whose rewards are all
equal gives exactly zero; the paper's compares it with one number for the whole batch.
"""

from __future__ import annotations

from torch import Tensor

from reaemb_bench.core.component import Component

_SMALLEST_SPREAD = 1e-6
"""Added to a divisor: rewards that differ only by rounding stay small instead of being blown up to unit size."""


class BatchBaselinePaper(Component):
    """Rewards minus the mean of the batch's clean rewards, divided by their L2 norm over the batch + 1e-6.

    Source: the released code of ReaEmb (arXiv 2606.16703). It favours items that are easy to rank under any
    noise, and a group of equal rewards still pushes; the group-relative ones (`leave-one-out`) do neither.
    Example: `advantage = "batch-baseline-paper"`.
    """

    def advantage(self, rewards: Tensor) -> Tensor:
        """(groups, G), the clean rollout first -> (groups, G)."""
        above = rewards - rewards[:, 0].mean()
        length: Tensor = above.norm()
        return above / (length + _SMALLEST_SPREAD)


class GroupMean(Component):
    """Rewards minus their group's mean. Source: GRPO (Shao et al., arXiv 2402.03300).

    The mean holds the rollout's own reward, which shrinks the expected gradient by (G - 1) / G; `leave-one-out` does
    not. Example: `advantage = {use = "group-mean", normalise = false}`.
    """

    normalise: bool = True
    """Divide by the group's standard deviation; false is Dr. GRPO (Liu et al., arXiv 2503.20783)."""

    def advantage(self, rewards: Tensor) -> Tensor:
        """(groups, G), the clean rollout first -> (groups, G)."""
        above = _above_clean(rewards)
        return _scaled(above - above.mean(dim=1, keepdim=True), above, self.normalise)


class GroupClean(Component):
    """Rewards minus the reward of the group's clean rollout: is this noise better than none?

    The greedy baseline of self-critical training (Rennie et al., arXiv 1612.00563). Unlike `group-mean` and
    `leave-one-out`, the advantages of a group need not sum to zero, so one unlucky clean rollout moves all of them.
    Example: `advantage = "group-clean"`.
    """

    normalise: bool = True
    """Divide by the group's standard deviation."""

    def advantage(self, rewards: Tensor) -> Tensor:
        """(groups, G), the clean rollout first -> (groups, G)."""
        above = _above_clean(rewards)
        return _scaled(above, above, self.normalise)


class LeaveOneOut(Component):
    """Rewards minus the mean reward of the group's other rollouts. Source: RLOO (Ahmadian et al., arXiv 2402.14740).

    Not normalised it is the unbiased one: G / (G - 1) times `group-mean`. Example: `advantage = "leave-one-out"`.
    """

    normalise: bool = False
    """Divide by the group's standard deviation, so that every item pushes equally hard; no longer unbiased."""

    def advantage(self, rewards: Tensor) -> Tensor:
        """(groups, G), the clean rollout first -> (groups, G)."""
        above = _above_clean(rewards)
        others = (above.sum(dim=1, keepdim=True) - above) / (above.shape[1] - 1)
        return _scaled(above - others, above, self.normalise)


def _above_clean(rewards: Tensor) -> Tensor:
    """Rewards measured from the clean one: equal rewards become exact zeros, which a mean of equal floats need not."""
    return rewards - rewards[:, :1]


def _scaled(advantages: Tensor, above: Tensor, normalise: bool) -> Tensor:
    return advantages / (above.std(dim=1, keepdim=True) + _SMALLEST_SPREAD) if normalise else advantages
