"""What a policy is told about its rollouts, and what it answers. Shapes: n rollouts, j thoughts, d hidden size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rollouts:
    """Thoughts that were injected, fixed while the policy is updated on them.

    actions: (n, j, d), the means at sampling time plus noise. noise: (n, j, d), zero for clean rollouts. sigma: the
    noise's standard deviation, in units of the thought's entries. sampled: (n,), False for clean rollouts.
    """

    actions: Tensor
    noise: Tensor
    sigma: float
    sampled: Tensor


@dataclass(frozen=True)
class LogDensity:
    """Log-densities (n, terms), and which of them count in the objective: (n, terms), bool.

    settled: (n,), how many terms beside these count without depending on the parameters: their ratio is 1 whatever
    their value, which is therefore not computed. None for none.
    """

    values: Tensor
    counted: Tensor
    settled: Tensor | None = None
