"""Kinds of component that a recommender is made of."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from reaemb_bench.core.artifacts import Corpus, Float32, Sequences
from reaemb_bench.core.registry import Pick
from reaemb_bench.evaluation.ranking import Scorer
from reaemb_bench.recommender.packing import Examples, Packed


class ItemTable(Protocol):
    """Where a recommender's item vectors come from."""

    def build(self, items: int, hidden: int, vectors: Float32 | None) -> torch.nn.Module:
        """A module whose forward() returns all item vectors (items, hidden)."""


class Head(Protocol):
    """A sequential recommender."""

    hidden: int
    max_length: int

    def spec(self) -> dict[str, Any]:
        """The recipe table that builds the head again; every component has it."""

    def build(self, table: torch.nn.Module) -> torch.nn.Module:
        """The network over an item table, which it keeps as `table`.

        Its forward(packed, vectors (items, hidden), indices (n,)) returns the states (n, hidden) at these indices of
        the flat batch.
        """

    def training_examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """Inputs and targets of a batch; each sequence has two items or more."""

    def scoring_input(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """The batch whose state at each user's last position scores the next item; no history is empty."""


class Objective(Protocol):
    """A training loss of a recommender; negatives: how many it reads per position."""

    negatives: int

    def loss(self, outputs: Tensor, targets: Tensor, vectors: Tensor, negatives: Tensor | None) -> Tensor:
        """outputs (p, hidden), targets (p,), vectors (items, hidden), negatives (p, k) -> scalar."""


class Floor(Protocol):
    """A method that learns only counts."""

    def fit(self, corpus: Corpus) -> Scorer:
        """A scorer from training counts."""


AnyItemTable = Annotated[ItemTable, Pick("item-table")]
AnyHead = Annotated[Head, Pick("head")]
AnyObjective = Annotated[Objective, Pick("objective")]
ManyFloors = Annotated[tuple[Floor, ...], Pick("floor", many=True)]
