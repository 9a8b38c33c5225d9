"""A smooth reward: every change of the scores changes it."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from reaemb_bench.core.component import Component

_SMALLEST_SPREAD = 1e-12
"""Keeps scores that are all equal from being divided by zero."""


class SoftmaxLikelihood(Component):
    """Log-likelihood of the positives, weighted by their shares, under a softmax over the candidates; at most 0.

    Logits are scores / (temperature * s), where s is the standard deviation over the candidates of the group's clean
    scores: scaling all embeddings changes nothing, and all rollouts of a group share one ruler, so s cannot be gamed
    by the noise. The smooth relative of `ndcg` and `reciprocal-log-rank`, which most small noise leaves unchanged;
    with one positive it is minus the InfoNCE loss (van den Oord et al., arXiv 1807.03748) on these logits.
    Example: `reward = {use = "softmax-likelihood", temperature = 0.5}`.
    """

    temperature: float = Field(default=1.0, gt=0)
    """In standard deviations of the clean scores: low looks at the hardest negatives only, high at all of them."""

    def reward(self, scores: Tensor, weights: Tensor) -> Tensor:
        """scores (groups, G, N), the clean rollout first; weights (groups, 1, N): shares -> (groups, G)."""
        ruler = scores[:, :1].std(dim=-1, keepdim=True, correction=0).clamp_min(_SMALLEST_SPREAD).detach()
        return (weights * (scores / (self.temperature * ruler)).log_softmax(dim=-1)).sum(-1)
