"""The latent-thought reasoners: attention of the prompt's last states over the prompt gives the thoughts."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from reaemb_bench.core.component import Component

_BASE = 1000.0


class ThoughtAttention(nn.Module):
    """Single-head attention with a rotary embedding over the whole hidden size d (base 1,000).

    forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d). Queries are the states of the
    last j tokens, keys and values all tokens, or the last `window` of them. scale: root mean square of each thought,
    None does not scale it. Source: arXiv 2606.16703, latent reasoning module.
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
        """Thoughts (n, j, d) of prompts whose last token is in the last column."""
        queries = self.rotate(self.query(states[:, -self.thoughts :]), positions[:, -self.thoughts :])
        keys = self.rotate(self.key(states), positions)
        allowed = mask.bool()
        if self.window is not None:
            allowed = allowed & (positions > positions[:, -1:] - self.window)
        # If a prompt is shorter than j, its first query is padding and its thought an average over the prompt.
        scores = queries @ keys.transpose(1, 2) / states.shape[-1] ** 0.5
        scores = scores.masked_fill(~allowed.unsqueeze(1), -torch.inf)
        # The weights of a query sum to 1, so averages are taken first and only j of them pass through `value`.
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

    Entry 2k and 2k + 1 form a plane but carry different angles, so this is not a rotation: scores depend on absolute
    positions: left padding changes the thought.
    """

    def rotate(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Mix entries 2k and 2k + 1 of (n, L, d), each with its own angle."""
        cosine, sine = self._angles(positions)
        turned = torch.stack([-vectors[..., 1::2], vectors[..., ::2]], dim=-1).flatten(-2)
        return vectors * cosine + turned * sine


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
    template: bool = True
    """Attend to the chat template and the prefix too, which are the same for all items; false attends to the item's
    own text alone."""

    @model_validator(mode="after")
    def _window_or_text(self) -> Self:
        if self.window is not None and not self.template:
            raise ValueError("window counts tokens of the template too; leave window or template = false out")
        return self

    def thought_scale(self, embedding_rms: float) -> float:
        """The root mean square at which thoughts are injected, 1.0 if they are not scaled."""
        return embedding_rms if self.scale == "embedding-rms" else 1.0

    def build(self, width: int, embedding_rms: float) -> torch.nn.Module | None:
        """The network: forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d)."""
        scale = embedding_rms if self.scale == "embedding-rms" else None
        return ThoughtAttention(width, self.thoughts, self.window, scale)


class LatentThoughtPaper(Component):
    """`latent-thought` with the authors' rotary embedding, which is not a rotation, and thoughts that are not scaled.

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
        return PaperThoughtAttention(width, self.thoughts, self.window, None)
