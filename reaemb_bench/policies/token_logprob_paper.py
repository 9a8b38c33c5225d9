"""The paper's policy: log-probabilities of the prompt's own tokens."""

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


class TokenLogprobPaper(Component):
    """One term a token: the LM head's log-probability of that token at its own position, without a shift by one.

    Source: the released code of ReaEmb (arXiv 2606.16703). The noise is added to the *current* thought, so its
    density is never evaluated; only the thought and EOS positions carry gradient, the others dilute the mean. Clean
    rollouts count like all others. `gaussian` is the policy gradient of what is sampled. Example:
    `policy = "token-logprob-paper"`.
    """

    low: float = Field(default=0.2, gt=0, lt=1)
    """Ratios below 1 - low gain nothing for bad rollouts."""
    high: float = Field(default=0.28, gt=0)
    """Ratios above 1 + high gain nothing for good rollouts."""

    def log_density(self, model: ThoughtModel, prefix: Prefix, means: Tensor, rollouts: Rollouts) -> LogDensity:
        """(n, j + 1), the thoughts and EOS, with the prompt's tokens settled; means (n, j, d) carry gradient."""
        import torch

        values = model.tail_logprobs(prefix, means + rollouts.noise)
        lengths = prefix.mask.sum(dim=1).repeat_interleave(len(means) // len(prefix.mask))
        return LogDensity(values, values.new_ones(values.shape, dtype=torch.bool), lengths)

    def loss(self, new: LogDensity, old: Tensor, advantages: Tensor) -> Tensor:
        """The clipped objective: old (n, j + 1) without gradient, advantages (n,) -> scalar."""
        return clipped_loss(new, old, advantages, self.low, self.high)
