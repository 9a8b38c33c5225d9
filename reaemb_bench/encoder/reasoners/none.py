"""No reasoning: the prompt is followed by EOS alone."""

from __future__ import annotations

import torch

from reaemb_bench.core.component import Component


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
        """None, because nothing is computed."""
        return None
