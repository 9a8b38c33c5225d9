"""Poolings: one vector for each prompt from its last hidden states. Shapes: n prompts, L tokens, d hidden size."""

from __future__ import annotations

from torch import Tensor

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError


class Mean(Component):
    """Mean over all real tokens, thoughts and EOS included: the paper's choice.

    The thought can change only the last 2 of L states, so its share of the vector is about 2/L; `last` and `thought`
    let it speak.
    """

    def pool(self, states: Tensor, mask: Tensor, thoughts: int) -> Tensor:
        """(n, L, d), (n, L) -> (n, d)."""
        weights = mask.to(states.dtype).unsqueeze(-1)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)


class Last(Component):
    """The state at EOS."""

    def pool(self, states: Tensor, mask: Tensor, thoughts: int) -> Tensor:
        """(n, L, d), (n, L) -> (n, d)."""
        return states[:, -1]


class Thought(Component):
    """Mean of the states at the thoughts."""

    def pool(self, states: Tensor, mask: Tensor, thoughts: int) -> Tensor:
        """(n, L, d), (n, L) -> (n, d). Raises UserError without thoughts."""
        if not thoughts:
            raise UserError("pooling 'thought' needs a reasoner with thoughts; choose pooling 'mean' or 'last'")
        return states[:, -1 - thoughts : -1].mean(dim=1)
