"""Rewards that look only at the ranks of the positives, so they are steps: a small change of the scores is unseen."""

from __future__ import annotations

import torch
from torch import Tensor

from reaemb_bench.core.component import Component


class ReciprocalLogRank(Component):
    """Sum over positives of share / (1 + log2(rank + 2)), rank from 0; at most 1/2. Source: ReaEmb, arXiv 2606.16703.

    Reads only ranks, like `ndcg`; `softmax-likelihood` is the smooth relative. Example: `reward =
    "reciprocal-log-rank"`.
    """

    def reward(self, scores: Tensor, weights: Tensor) -> Tensor:
        """scores (groups, G, N), weights (groups, 1, N): shares of the positives -> (groups, G)."""
        return (weights / (1 + (ranks(scores) + 2).log2())).sum(-1)


class NDCG(Component):
    """Sum over positives of share / log2(rank + 2), divided by the best possible sum; in (0, 1].

    Source: Järvelin and Kekäläinen, 2002, with shares as gains. Falls faster at the top than `reciprocal-log-rank`
    and is 1 for a perfect ranking, however many positives there are. Example: `reward = "ndcg"`.
    """

    def reward(self, scores: Tensor, weights: Tensor) -> Tensor:
        """scores (groups, G, N), weights (groups, 1, N): shares of the positives -> (groups, G)."""
        places = torch.arange(2, scores.shape[-1] + 2, device=scores.device, dtype=scores.dtype)
        ideal = (weights.sort(dim=-1, descending=True).values / places.log2()).sum(-1)
        return (weights / (ranks(scores) + 2).log2()).sum(-1) / ideal


def ranks(scores: Tensor) -> Tensor:
    """Rank from 0 of each candidate, (..., N) -> (..., N) by falling score; equal scores share their mean rank.

    So a constant scorer is rewarded as chance, not by the order in which candidates happen to be listed.
    """
    own, others = scores.unsqueeze(-1), scores.unsqueeze(-2)
    tied = (others == own).sum(-1) - 1
    return (others > own).sum(-1) + tied / 2
