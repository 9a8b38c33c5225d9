"""The latent-thought reasoner: attention over the prompt gives the thoughts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reaemb_bench.component import Component

if TYPE_CHECKING:
    import torch


class LatentThought(Component):
    """Thoughts by attention of the prompt's last tokens over the prompt, with a true (relative) rotary embedding.

    Padding does not change the thought. Source: arXiv 2606.16703, latent reasoning module; `latent-thought-paper` is
    its sibling with the rotary embedding of the authors' code.
    """

    thoughts: int = Field(default=1, ge=1)
    """Number of latent thoughts; the last so many tokens of the prompt are the queries."""
    window: int | None = Field(default=None, ge=1)
    """How many of the last tokens are keys and values; None takes the whole prompt."""
    scale: Literal["embedding-rms", "none"] = "embedding-rms"
    """Size of an injected thought: the root mean square of the input embeddings, or as the attention gives it."""

    def thought_scale(self, embedding_rms: float) -> float:
        """The root mean square at which thoughts are injected, 1.0 where they are not scaled."""
        return embedding_rms if self.scale == "embedding-rms" else 1.0

    def build(self, width: int, embedding_rms: float) -> torch.nn.Module | None:
        """The network: forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d)."""
        from reaemb_bench.reasoners.latent_thought_network import ThoughtAttention

        scale = embedding_rms if self.scale == "embedding-rms" else None
        return ThoughtAttention(width, self.thoughts, self.window, scale)
