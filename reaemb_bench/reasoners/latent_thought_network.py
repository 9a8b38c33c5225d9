"""Networks of the latent-thought reasoners: attention of the prompt's last states over the prompt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_BASE = 1000.0


class ThoughtAttention(nn.Module):
    """Single-head attention with a rotary embedding over the whole hidden size d (base 1,000).

    forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d). Queries are the states of the
    last j tokens, keys and values all tokens, or the last `window` of them. scale: root mean square of each thought,
    None leaves it as it comes. Source: arXiv 2606.16703, latent reasoning module.
    """

    def __init__(self, width: int, thoughts: int, window: int | None, scale: float | None) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.thoughts = thoughts
        self.window = window
        self.scale = scale
        frequencies = _BASE ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(self, states: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Thoughts (n, j, d) of prompts whose last token stands in the last column."""
        queries = self.rotate(self.query(states[:, -self.thoughts :]), positions[:, -self.thoughts :])
        keys = self.rotate(self.key(states), positions)
        allowed = mask.bool()
        if self.window is not None:
            allowed = allowed & (positions > positions[:, -1:] - self.window)
        # Where a prompt is shorter than j, its first query is padding and its thought an average over the prompt.
        scores = queries @ keys.transpose(1, 2) / states.shape[-1] ** 0.5
        scores = scores.masked_fill(~allowed.unsqueeze(1), -torch.inf)
        # The weights of a query add up to 1, so values of averages are averages of values, and j of them are enough.
        thoughts: Tensor = self.value(torch.softmax(scores, dim=-1) @ states)
        if self.scale is None:
            return thoughts
        return thoughts * (self.scale / thoughts.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6))

    def rotate(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Rotate (n, L, d) by the angles of positions (n, L): entry k and entry k + d/2 are one plane."""
        cosine, sine = self._angles(positions)
        first, second = vectors.chunk(2, dim=-1)
        return vectors * cosine + torch.cat([-second, first], dim=-1) * sine

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        half = positions.unsqueeze(-1).float() * self.frequencies
        cosine, sine = half.cos(), half.sin()
        return torch.cat([cosine, cosine], dim=-1), torch.cat([sine, sine], dim=-1)


class PaperThoughtAttention(ThoughtAttention):
    """The same with the rotary embedding of the authors' code: angles laid out in halves, planes of neighbours.

    Entry 2k and 2k + 1 form a plane but carry different angles, so this is no rotation and scores depend on absolute
    positions: left padding changes the thought.
    """

    def rotate(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Mix entries 2k and 2k + 1 of (n, L, d), each with its own angle."""
        cosine, sine = self._angles(positions)
        turned = torch.stack([-vectors[..., 1::2], vectors[..., ::2]], dim=-1).flatten(-2)
        return vectors * cosine + turned * sine
