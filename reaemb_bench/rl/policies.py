"""Policies over thoughts and their objectives. Shapes: g groups of G rollouts, n = g * G, j thoughts, d hidden size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.shared_prefix import Prefix
from reaemb_bench.encoder.thought_model import ThoughtModel


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

    settled: (n,), how many further terms count without depending on the parameters: their ratio is always 1, so their
    values are not computed. None for none.
    """

    values: Tensor
    counted: Tensor
    settled: Tensor | None = None


@dataclass(frozen=True)
class Trial:
    """What a policy learns from in one of the iterations over a sample.

    prefix: the g prompts. means: (n, j, d), the thoughts under the parameters as they are now, with gradient.
    advantages: (n,). rewards: computes (g, G), those of the same noise around `means`, with gradient through the
    language model. old: the `old` of the sample's first iteration, None in it. counted: (g,), 1 for groups that count.
    """

    model: ThoughtModel
    prefix: Prefix
    means: Tensor
    rollouts: Rollouts
    advantages: Tensor
    rewards: Callable[[], Tensor]
    counted: Tensor
    old: Tensor | None = None


@dataclass(frozen=True)
class PolicyLoss:
    """The mean of an objective over `terms` terms, with gradient, and what the next iteration is told."""

    value: Tensor
    terms: Tensor
    old: Tensor | None = None


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


def _clipped(new: LogDensity, trial: Trial, low: float, high: float) -> PolicyLoss:
    old = new.values.detach() if trial.old is None else trial.old
    terms = new.counted.sum() if new.settled is None else new.counted.sum() + new.settled.sum()
    return PolicyLoss(clipped_loss(new, old, trial.advantages, low, high), terms, old)


class Gaussian(Component):
    """Action a = r + sigma eps, density N(r, sigma^2 I): the distribution that the rollouts really come from.

    The gradient pass needs the reasoner alone, no language model. At ratio 1 its gradient is REINFORCE (Williams,
    1992): A (a - r) / sigma^2 times the thought's gradient. Clean rollouts are not samples, so they do not count
    in the objective; they still serve as baseline. A rollout is one term: thoughts and dimensions are drawn together,
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

    def log_density(self, means: Tensor, rollouts: Rollouts) -> LogDensity:
        """(n, 1), up to a constant that the ratio cancels; means (n, j, d) carry gradient. Reads no prompt."""
        distances = ((rollouts.actions - means) / rollouts.sigma).square().flatten(1)
        total = distances.mean(1, keepdim=True) if self.per_dimension else distances.sum(1, keepdim=True)
        return LogDensity(-total / 2, rollouts.sampled.unsqueeze(1))

    def loss(self, trial: Trial) -> PolicyLoss:
        """The clipped objective; `old` are the densities (n, 1) at sampling time."""
        new = self.log_density(trial.means, trial.rollouts)
        return _clipped(new, trial, self.low, self.high)


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
        values = model.tail_logprobs(prefix, means + rollouts.noise)
        lengths = prefix.mask.sum(dim=1).repeat_interleave(len(means) // len(prefix.mask))
        return LogDensity(values, values.new_ones(values.shape, dtype=torch.bool), lengths)

    def loss(self, trial: Trial) -> PolicyLoss:
        """The clipped objective; `old` are the log-probabilities (n, j + 1) at sampling time."""
        new = self.log_density(trial.model, trial.prefix, trial.means, trial.rollouts)
        return _clipped(new, trial, self.low, self.high)


class Pathwise(Component):
    """Action a = r + sigma eps as in `gaussian`, learned by the gradient of the reward itself, through the action.

    The reparametrisation gradient (Kingma and Welling, arXiv 1312.6114): the mean reward of the rollouts is
    differentiated with respect to r through the language model, the vector and the scores. It takes a reward that is
    smooth in the scores, such as `softmax-likelihood` (ranks have no gradient), and advantages play no part. One
    rollout says in all d directions what a score function learns from many, which estimate one number each: no longer
    reinforcement from rewards alone, but what such an estimate converges to. Example: `policy = "pathwise"`.
    """

    def loss(self, trial: Trial) -> PolicyLoss:
        """Minus the mean reward. Raises UserError if the reward has no gradient."""
        rewards = trial.rewards()
        if not rewards.requires_grad:
            raise UserError("policy 'pathwise' needs a smooth reward; say reward = 'softmax-likelihood'")
        counted = trial.counted.unsqueeze(1)
        return PolicyLoss(-(rewards * counted).mean(), counted.new_tensor(rewards.numel()))
