"""Kinds of component of stage CRRL. Shapes: n prompts, d hidden size, j thoughts, G rollouts a group, N candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol

from reaemb_bench.core.registry import Pick

if TYPE_CHECKING:
    from torch import Tensor

    from reaemb_bench.rl.policies import PolicyLoss, Trial


class Reward(Protocol):
    """Scores how a rollout ranks its candidates."""

    def reward(self, scores: Tensor, weights: Tensor) -> Tensor:
        """scores (groups, G, N), the clean rollout first; weights (groups, 1, N): the share of each positive among the
        group's positives, 0 for negatives -> (groups, G).
        """


class Advantage(Protocol):
    """Turns the rewards of groups into advantages."""

    def advantage(self, rewards: Tensor) -> Tensor:
        """(groups, G), the clean rollout first -> (groups, G)."""


class Policy(Protocol):
    """The stochastic policy over thoughts and its objective."""

    def loss(self, trial: Trial) -> PolicyLoss:
        """The objective to minimise on rollouts, once or several times; see `Trial`."""


AnyReward = Annotated[Reward, Pick("reward")]
AnyAdvantage = Annotated[Advantage, Pick("advantage")]
AnyPolicy = Annotated[Policy, Pick("policy")]
