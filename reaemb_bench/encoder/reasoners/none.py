"""No reasoning: the prompt is followed by EOS alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaemb_bench.core.component import Component

if TYPE_CHECKING:
    import torch


class NoThought(Component):
    """No latent thought and no thought token: what reasoning has to beat."""

    @property
    def thoughts(self) -> int:
        """0."""
        return 0

    def thought_scale(self, embedding_rms: float) -> float:
        """1.0, which scales nothing."""
        return 1.0

    def build(self, width: int, embedding_rms: float) -> torch.nn.Module | None:
        """None: there is no network."""
        return None
