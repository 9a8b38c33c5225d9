"""LLM-ESR (arXiv 2405.20646): a semantic and a collaborative view of each item; similar users teach each other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from reaemb_bench.core.artifacts import Corpus, Float32, Int64, Ranker, Sequences, ValidationTargets, Vectors
from reaemb_bench.core.component import Component, Context
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.reducers import PCA
from reaemb_bench.recommender.attention import attend
from reaemb_bench.recommender.fit import Penalty, TrainSettings, fit
from reaemb_bench.recommender.item_tables import FrozenTable, IdTable, given_vectors
from reaemb_bench.recommender.kinds import AnyHead, AnyItemTable, Head
from reaemb_bench.recommender.packing import Examples, Packed

_BLOCK = 1024
_TEACHERS_AT_ONCE = 256


class TrainDistilled(TrainSettings):
    """Train a head while each user's state is drawn to the states of users with similar item texts."""

    version: ClassVar[int] = 3

    items: AnyItemTable
    """Where its item vectors come from, those of both views joined."""
    attention_heads: int = Field(default=2, ge=1)
    """Heads of the attention between views; must divide the width of `head`, which is that of a view."""
    neighbours: int = Field(default=10, ge=1)
    """Similar users whose mean state teaches; fewer if the data have fewer."""
    weight: float = Field(default=0.1, ge=0)
    """Weight of the distillation in the loss; 0 leaves it out."""
    refresh: int = Field(default=30, ge=1)
    """Steps after which the teachers' states are computed again; 1 is the paper's way, at many times the cost."""

    def run(self, corpus: Corpus, validation_targets: ValidationTargets, vectors: Vectors, context: Context) -> Ranker:
        """The recommender at its best epoch: `head` reads each view, so states and item vectors are twice as wide."""
        use = f"{Path(__file__).resolve()}:DualView"
        dual = build("head", {"use": use, "view": self.head, "attention_heads": self.attention_heads})
        penalty = self.distillation(corpus, similar_users(corpus, vectors, self.neighbours)) if self.weight else None
        settings = self.model_copy(update={"head": dual})
        return fit(corpus, validation_targets, vectors.values, self.items, settings, context, penalty)

    def distillation(self, corpus: Corpus, similar: Int64) -> Penalty:
        """What training adds to the loss; similar: (users, neighbours), whose states teach each user."""
        teachers, numbers = np.unique(similar, return_inverse=True)
        teachers_of = torch.from_numpy(numbers.reshape(similar.shape))
        taught, steps = torch.empty(0), 0

        def states(network: nn.Module, table: Tensor, users: Int64) -> Tensor:
            packed = self.head.scoring_input(corpus.training.select(users), corpus.items, table.device)
            last: Tensor = network(packed, table, packed.last)
            return last

        def distillation(network: nn.Module, table: Tensor, users: Int64) -> Tensor:
            nonlocal taught, steps
            if steps % self.refresh == 0:
                with torch.no_grad():
                    blocks = np.split(teachers, range(_TEACHERS_AT_ONCE, len(teachers), _TEACHERS_AT_ONCE))
                    taught = torch.cat([states(network, table, block) for block in blocks])
            steps += 1
            mean = taught[teachers_of[users].to(taught.device)].mean(dim=1)
            return self.weight * F.mse_loss(states(network, table, users), mean)

        return distillation


def similar_users(corpus: Corpus, vectors: Vectors, neighbours: int) -> Int64:
    """The other users (users, neighbours) whose mean centred text vectors have the highest cosine.

    Only users with training interactions are neighbours, and fewer than `neighbours` if there are fewer.
    """
    centred = vectors.values - vectors.values.mean(axis=0)
    means = np.zeros((corpus.users, vectors.width), dtype=np.float32)
    np.add.at(means, corpus.training.owners, centred[corpus.training.items])
    unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    known = corpus.training.lengths > 0
    count = min(neighbours, int(known.sum()) - 1)
    nearest = np.empty((corpus.users, count), dtype=np.int64)
    for start in range(0, corpus.users, _BLOCK):
        cosines = np.where(known, unit[start : start + _BLOCK] @ unit.T, -np.inf)
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        nearest[start : start + len(rows)] = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return nearest


class DualTable(Component):
    """Frozen text vectors with an adapter, joined with trainable vectors that start at their principal components."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> nn.Module:
        """forward() -> (items, hidden), one half per view. Raises UserError if vectors are missing or too narrow."""
        given, width = given_vectors(items, vectors), hidden // 2
        start = PCA(dimensions=width).reduce(Vectors(given)).values
        inner = max(1, given.shape[1] // 2)
        semantic = FrozenTable(given, width, adapter="linear", inner=inner, unit_rms=True)
        return SideBySide(semantic, IdTable(items, width, start))


class SideBySide(nn.Module):
    """Two tables joined: the semantic view, then the collaborative one."""

    def __init__(self, semantic: nn.Module, collaborative: nn.Module) -> None:
        super().__init__()
        self.semantic = semantic
        self.collaborative = collaborative

    def forward(self) -> Tensor:
        """(items, hidden)."""
        return torch.cat([self.semantic(), self.collaborative()], dim=1)


class DualView(Component):
    """One encoder reads both views of a history, after each has attended to the other."""

    view: AnyHead
    """The encoder of a view, shared by both."""
    attention_heads: int = Field(default=2, ge=1)
    """Heads of the attention between views; must divide the width of a view."""

    @property
    def hidden(self) -> int:
        """Width of both views together."""
        return 2 * self.view.hidden

    @property
    def max_length(self) -> int:
        """Most recent interactions that are read."""
        return self.view.max_length

    def build(self, table: nn.Module) -> nn.Module:
        """The network over a table of joined views (items, hidden). Heads that read masks attend in both directions."""
        one_item = Sequences(np.zeros(1, dtype=np.int32), np.array([0, 1]))
        masks = len(self.view.scoring_input(one_item, 1, torch.device("cpu")).items) > 1
        return DualNetwork(self.view, table, self.attention_heads, masks)

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Those of the encoder."""
        return self.view.training_examples(sequences, items, generator)

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """That of the encoder."""
        return self.view.scoring_input(histories, items, device)


class DualNetwork(nn.Module):
    """Cross-attention between the views of a history, then the encoder that reads either."""

    def __init__(self, view: Head, table: nn.Module, attention_heads: int, masks: bool) -> None:
        super().__init__()
        self.table = table
        self.scale = math.sqrt(view.hidden)
        # Positions count from 1, and a mask may come after the last.
        self.position = nn.Embedding(view.max_length + 2, view.hidden)
        self.masks = nn.Parameter(torch.randn(2, view.hidden) / self.scale) if masks else None
        self.to_semantic = CrossAttention(view.hidden, attention_heads, causal=not masks)
        self.to_collaborative = CrossAttention(view.hidden, attention_heads, causal=not masks)
        self.encoder = view.build(nn.Identity())
        nn.init.normal_(self.position.weight, std=1 / self.scale)

    def forward(self, packed: Packed, vectors: Tensor, indices: Tensor) -> Tensor:
        """Joined states (n, hidden); vectors (items, hidden); item number `items` is the mask."""
        views = list(vectors.chunk(2, dim=1))
        if self.masks is not None:
            views = [torch.cat([view, mask[None]]) for view, mask in zip(views, self.masks, strict=True)]
        positions = self.position(packed.positions)
        semantic, collaborative = (F.embedding(packed.items, view) * self.scale + positions for view in views)
        attended = (
            self.to_semantic(collaborative, semantic, packed),
            self.to_collaborative(semantic, collaborative, packed),
        )
        # The encoder looks vectors up by number, so each position, masks included, becomes an item of its own.
        numbered = replace(packed, items=torch.arange(len(packed.items), device=vectors.device))
        return torch.cat([self.encoder(numbered, states / self.scale, indices) for states in attended], dim=1)


class CrossAttention(nn.Module):
    """Queries of one view attend to the other view: causal, at the same and earlier positions."""

    def __init__(self, width: int, attention_heads: int, *, causal: bool) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.causal = causal
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: Tensor, values: Tensor, packed: Packed) -> Tensor:
        """(positions, width) of each view -> (positions, width)."""
        projected = torch.cat([self.query(queries), self.key_value(values)], dim=1)
        output: Tensor = self.output(attend(projected, packed, self.attention_heads, causal=self.causal, dropout=0.0))
        return output
