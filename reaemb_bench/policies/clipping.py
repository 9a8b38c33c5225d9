"""The clipped surrogate objective that all policies share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaemb_bench.policies.rollouts import LogDensity

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_LOG_RATIO = 20.0
"""Far outside any clipping; beyond it exp overflows in float32, and the gradient of a clipped term would be NaN."""


def clipped_loss(new: LogDensity, old: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """Minus the mean, over all counted terms of the batch, of min(q A, clip(q, 1 - low, 1 + high) A).

    q = exp(new - old) is the probability ratio of a term; old: (n, terms) without gradient; advantages: (n,).
    Source: PPO (Schulman et al., arXiv 1707.06347), with the unequal bounds of DAPO (Yu et al., arXiv 2503.14476).
    """
    ratio = (new.values - old).clamp(max=_LARGEST_LOG_RATIO).exp()
    weights = advantages.unsqueeze(1)
    gain = (ratio * weights).minimum(ratio.clamp(1 - low, 1 + high) * weights)
    counted = new.counted.to(gain.dtype)
    settled = advantages.new_zeros(()) if new.settled is None else new.settled.to(gain.dtype)
    return -((gain * counted).sum() + (settled * advantages).sum()) / (counted.sum() + settled.sum())
