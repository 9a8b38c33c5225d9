"""Two recommenders that are trained apart and score together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Float32, Ranker, Sequences, ValidationTargets, Vectors
from reaemb_bench.core.component import Component, Context, Progress
from reaemb_bench.core.plan import derive_seed
from reaemb_bench.core.registry import build
from reaemb_bench.recommender.fit import TrainSettings
from reaemb_bench.recommender.kinds import AnyHead, AnyItemTable, Head, ItemTable

if TYPE_CHECKING:
    from reaemb_bench.recommender.packing import Examples, Packed

_PARTS = ("ids", "texts")


class TrainBoth(TrainSettings):
    """Train one recommender on ids and one on texts, each with its own early stopping (EnsRec, arXiv 2512.17820)."""

    ids: AnyItemTable = "ids"  # type: ignore[assignment]
    """Where the first recommender's item vectors come from."""
    texts: AnyItemTable = "frozen"  # type: ignore[assignment]
    """Where the second recommender's item vectors come from."""

    def run(self, corpus: Corpus, validation_targets: ValidationTargets, vectors: Vectors, context: Context) -> Ranker:
        """One recommender whose score is the sum of the two: states and item vectors stand side by side."""
        from reaemb_bench.recommender.fit import fit

        tables: dict[str, tuple[ItemTable, Float32 | None]] = {
            "ids": (self.ids, None),
            "texts": (self.texts, vectors.values),
        }
        fitted = [
            fit(corpus, validation_targets, given, table, self, _part_of(context, part, self.epochs))
            for part, (table, given) in tables.items()
        ]
        head = build("head", {"use": f"{Path(__file__).resolve()}:SumOfScores", "head": self.head})
        return Ranker(head.spec(), _side_by_side(fitted))


class SumOfScores(Component):
    """Two networks of one head; the inner product of their joined states and vectors is the sum of their scores."""

    head: AnyHead
    """The head of both."""

    @property
    def hidden(self) -> int:
        """Width of joined item vectors and states."""
        return 2 * self.head.hidden

    @property
    def max_length(self) -> int:
        """Most recent interactions that are read."""
        return self.head.max_length

    def build(self, table: nn.Module) -> nn.Module:
        """The two networks, over a table of joined item vectors (items, 2 · the head's width)."""
        return Joined(self.head, table)

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """What the head asks."""
        return self.head.training_examples(sequences, items, generator)

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """What the head asks."""
        return self.head.scoring_input(histories, items, device)


class Joined(nn.Module):
    """Two networks, each over its half of the item vectors."""

    def __init__(self, head: Head, table: nn.Module) -> None:
        super().__init__()
        self.table = table
        self.ids = head.build(nn.Identity())
        self.texts = head.build(nn.Identity())

    def forward(self, packed: Packed, vectors: Tensor, places: Tensor) -> Tensor:
        """Joined states (places, 2 · width)."""
        by_ids, by_texts = vectors.chunk(2, dim=1)
        return torch.cat([self.ids(packed, by_ids, places), self.texts(packed, by_texts, places)], dim=1)


def _side_by_side(fitted: list[Ranker]) -> dict[str, np.ndarray]:
    """The tensors of both recommenders under the names of `Joined`, and their item vectors joined."""
    joined = {"vectors": np.concatenate([each.tensors["vectors"] for each in fitted], axis=1)}
    for part, each in zip(_PARTS, fitted, strict=True):
        own = {name: tensor for name, tensor in each.tensors.items() if name != "vectors"}
        joined.update({f"{part}.{name}": tensor for name, tensor in own.items() if not name.startswith("table.")})
    return joined


def _part_of(context: Context, part: str, epochs: int) -> Context:
    """The context of one training: a seed of its own, epochs counted over both, facts under the part's name."""
    before = _PARTS.index(part) * epochs

    def report(tick: Progress) -> None:
        values = {f"{part}/{name}": value for name, value in tick.values.items()}
        context.report(Progress(before + tick.done, len(_PARTS) * tick.total, tick.unit, values))

    def note(facts: Mapping[str, float | int | str]) -> None:
        context.note({f"{part}: {name}": fact for name, fact in facts.items()})

    return replace(context, seed=derive_seed(context.seed, part), report=report, note=note)
