"""Kinds of component that a recommender is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol

from reaemb_bench.core.artifacts import Corpus, Float32, Sequences
from reaemb_bench.core.registry import Pick
from reaemb_bench.evaluation.ranking import Scorer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from reaemb_bench.recommender.packing import Examples, Packed


class ItemTable(Protocol):
    """Where a recommender's item vectors come from."""

    def build(self, items: int, width: int, vectors: Float32 | None) -> torch.nn.Module:
        """A module whose forward() gives all item vectors (items, width)."""


class Head(Protocol):
    """A sequential recommender."""

    hidden: int
    max_length: int

    def spec(self) -> dict[str, Any]:
        """The recipe table that builds the head again; every component has it."""

    def build(self, table: torch.nn.Module) -> torch.nn.Module:
        """The network over an item table, kept as `table`: forward(packed, vectors (items, hidden), places (n,)) -> the
        states (n, hidden) at these places of the flat batch.
        """

    def examples(self, sequences: Sequences, items: int, generator: np.random.Generator) -> Examples:
        """What training asks of sequences of two items or more."""

    def question(self, histories: Sequences, items: int, device: torch.device) -> Packed:
        """What to read so that the state at each user's last position asks for the next item; none is empty."""


class Objective(Protocol):
    """A training loss of a recommender; negatives: how many it reads a position."""

    negatives: int

    def loss(self, outputs: Tensor, targets: Tensor, table: Tensor, negatives: Tensor | None) -> Tensor:
        """outputs (p, hidden), targets (p,), table (items, hidden), negatives (p, k) -> scalar."""


class Floor(Protocol):
    """A method that learns nothing but counts."""

    def fit(self, corpus: Corpus) -> Scorer:
        """A scorer from training counts."""


AnyItemTable = Annotated[ItemTable, Pick("item-table")]
AnyHead = Annotated[Head, Pick("head")]
AnyObjective = Annotated[Objective, Pick("objective")]
ManyFloors = Annotated[tuple[Floor, ...], Pick("floor", many=True)]
