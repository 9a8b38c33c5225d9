"""EnsRec (arXiv 2512.17820): two recommenders that are trained separately and whose scores are added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Ranker, Sequences, ValidationTargets, Vectors
from reaemb_bench.core.component import Component, Context, Progress
from reaemb_bench.core.plan import derive_seed
from reaemb_bench.core.registry import build
from reaemb_bench.recommender.fit import TrainSettings, fit
from reaemb_bench.recommender.kinds import AnyHead, AnyItemTable, Head
from reaemb_bench.recommender.packing import Examples, Packed


class TrainBoth(TrainSettings):
    """Train one recommender on ids and one on texts, each with its own seed and early stopping."""

    ids: AnyItemTable = "ids"  # type: ignore[assignment]
    """Where the first recommender's item vectors come from."""
    texts: AnyItemTable = "frozen"  # type: ignore[assignment]
    """Where the second recommender's item vectors come from."""

    def run(self, corpus: Corpus, validation_targets: ValidationTargets, vectors: Vectors, context: Context) -> Ranker:
        """One recommender whose score is the sum of the two: states and item vectors are joined."""
        tensors: dict[str, np.ndarray] = {}
        item_vectors = []
        for number, (part, table, given) in enumerate((("ids", self.ids, None), ("texts", self.texts, vectors.values))):
            fitted = fit(corpus, validation_targets, given, table, self, self._context_of(context, part, number))
            item_vectors.append(fitted.tensors["vectors"])
            tensors |= {
                f"{part}.{name}": tensor
                for name, tensor in fitted.tensors.items()
                if name != "vectors" and not name.startswith("table.")
            }
        head = build("head", {"use": f"{Path(__file__).resolve()}:SumOfScores", "head": self.head})
        return Ranker(head.spec(), {"vectors": np.concatenate(item_vectors, axis=1), **tensors})

    def _context_of(self, context: Context, part: str, number: int) -> Context:
        """The context of one training: its own seed, epochs counted over both, facts under the part's name."""

        def report(progress: Progress) -> None:
            values = {f"{part}/{name}": value for name, value in progress.values.items()}
            done = number * self.epochs + progress.done
            context.report(Progress(done, 2 * progress.total, progress.unit, values))

        def note(facts: Mapping[str, float | int | str]) -> None:
            context.note({f"{part}: {name}": fact for name, fact in facts.items()})

        return replace(context, seed=derive_seed(context.seed, part), report=report, note=note)


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
        """The two networks, over a table of joined item vectors (items, 2 * the head's width)."""
        return Joined(self.head, table)

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Those of the head."""
        return self.head.training_examples(sequences, items, generator)

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """That of the head."""
        return self.head.scoring_input(histories, items, device)


class Joined(nn.Module):
    """Two networks, each over its half of the item vectors."""

    def __init__(self, head: Head, table: nn.Module) -> None:
        super().__init__()
        self.table = table
        self.ids = head.build(nn.Identity())
        self.texts = head.build(nn.Identity())

    def forward(self, packed: Packed, vectors: Tensor, indices: Tensor) -> Tensor:
        """Joined states (n, 2 * width)."""
        by_ids, by_texts = vectors.chunk(2, dim=1)
        return torch.cat([self.ids(packed, by_ids, indices), self.texts(packed, by_texts, indices)], dim=1)
