"""The policy that is sampled: a Gaussian around the thought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench.component import Component
from reaemb_bench.policies.clipping import clipped_loss
from reaemb_bench.policies.rollouts import LogDensity, Rollouts

if TYPE_CHECKING:
    from torch import Tensor

    from reaemb_bench.encoding.model import ThoughtModel
    from reaemb_bench.encoding.prefix import Prefix


class Gaussian(Component):
    """Action a = r + sigma eps, density N(r, sigma^2 I): the distribution that the rollouts really come from.

    The gradient pass needs the reasoner alone, no language model. At ratio 1 its gradient is REINFORCE (Williams,
    1992): A (a - r) / sigma^2 times the thought's gradient. Clean rollouts are no samples, so they count in no
    objective; they still serve as baseline. A rollout is one term: all thoughts and dimensions are drawn together,
    so the log-ratio sums over them, with standard deviation |shift of r| / sigma. Clipping it at 1 +- 0.2 therefore
    bounds the shift to about 0.2 sigma *in all*, however wide the model is. The paper's policy is
    `token-logprob-paper`. Example: `policy = {use = "gaussian", high = 0.2}`.
    """

    low: float = Field(default=0.2, gt=0, lt=1)
    """Ratios below 1 - low gain nothing for bad rollouts."""
    high: float = Field(default=0.28, gt=0)
    """Ratios above 1 + high gain nothing for good rollouts."""
    per_dimension: bool = False
    """Average the log-density over dimensions instead of summing it: the geometric mean of the dimensions' ratios,
    as GSPO (arXiv 2507.18071) does over tokens. Clipping then bounds the shift of one dimension, far more loosely."""

    def log_density(self, model: ThoughtModel, prefix: Prefix, means: Tensor, rollouts: Rollouts) -> LogDensity:
        """(n, 1), up to a constant that the ratio cancels; means (n, j, d) carry gradient. Reads no prompt."""
        distances = ((rollouts.actions - means) / rollouts.sigma).square().flatten(1)
        total = distances.mean(1, keepdim=True) if self.per_dimension else distances.sum(1, keepdim=True)
        return LogDensity(-total / 2, rollouts.sampled.unsqueeze(1))

    def loss(self, new: LogDensity, old: Tensor, advantages: Tensor) -> Tensor:
        """The clipped objective: old (n, 1) without gradient, advantages (n,) -> scalar."""
        return clipped_loss(new, old, advantages, self.low, self.high)
