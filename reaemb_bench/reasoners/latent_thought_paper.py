"""The latent-thought reasoner of the authors' code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench.component import Component

if TYPE_CHECKING:
    import torch


class LatentThoughtPaper(Component):
    """`latent-thought` with the authors' rotary embedding, which is no rotation, and thoughts that are not scaled.

    An item's vector depends on the padding that its batch happens to need, so with left padding it depends on the
    micro-batch too.
    """

    thoughts: int = Field(default=1, ge=1)
    """Number of latent thoughts; the authors' code has one."""
    window: int | None = Field(default=None, ge=1)
    """How many of the last tokens are keys and values; None takes the whole prompt."""

    def thought_scale(self, embedding_rms: float) -> float:
        """1.0: thoughts are injected as the attention gives them."""
        return 1.0

    def build(self, width: int, embedding_rms: float) -> torch.nn.Module | None:
        """The network: forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d)."""
        from reaemb_bench.reasoners.latent_thought_network import PaperThoughtAttention

        return PaperThoughtAttention(width, self.thoughts, self.window, None)
