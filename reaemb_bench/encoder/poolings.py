"""Poolings: one vector for each prompt from its last hidden states. Shapes: n prompts, L tokens, d hidden size."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError


class Mean(Component):
    """Mean over all real tokens, thoughts and EOS included: the paper's choice.

    The thought can change only the last 2 of L states, so its share of the vector is about 2/L, and no training of
    the thought alone moves the vectors; `text-and-thought` gives it a share of its own.
    """

    template: bool = True
    """Average over the chat template and the prefix too, which are the same for all items; false leaves them out."""

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


class TextAndThought(Component):
    """(1 - a) times the mean state of the prompt plus a times the mean state of the thoughts.

    The thought weighs a, however long the text is, so that training it alone can move the vectors: the pooling for
    CRRL. EOS is left out. Example: `llm.pooling = {use = "text-and-thought", share = 0.5, template = false}`.
    """

    share: float = Field(default=0.5, gt=0, lt=1)
    """The thoughts' share a; where it starts if it is learned."""
    learned: bool = False
    """Train the share with the thought; it is kept with the reasoner's weights."""
    template: bool = True
    """Average over the chat template and the prefix too, which are the same for all items; false takes the item's own
    text alone."""

    def pool(self, states: Tensor, mask: Tensor, thoughts: int) -> Tensor:
        """(n, L, d), (n, L) -> (n, d). Raises UserError without thoughts."""
        return self.mix(states, mask, thoughts, self.share)

    def mix(self, states: Tensor, mask: Tensor, thoughts: int, share: Tensor | float) -> Tensor:
        """`pool` with another share, such as the learned one, a scalar tensor."""
        if not thoughts:
            raise UserError(
                "pooling 'text-and-thought' needs a reasoner with thoughts; choose pooling 'mean' or 'last'"
            )
        ends = thoughts + 1
        weights = mask[:, :-ends].to(states.dtype).unsqueeze(-1)
        text = (states[:, :-ends] * weights).sum(dim=1) / weights.sum(dim=1)
        return text * (1 - share) + states[:, -ends:-1].mean(dim=1) * share
