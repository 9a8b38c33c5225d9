"""The kinds of component: what each must be able to do, and the field types that let a recipe pick one.

A component satisfies its protocol by having the methods; it inherits nothing but `Component`. Shapes: n prompts,
L tokens, d hidden size, j thoughts, G rollouts a group, N candidates.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, get_args

from reaemb_bench.artifacts import Corpus, Float32, Sequences, Vectors
from reaemb_bench.component import Pick
from reaemb_bench.machine import Machine

if TYPE_CHECKING:
    import numpy as np
    import torch
    from scipy.sparse import csr_array
    from torch import Tensor

    from reaemb_bench.data.interactions import Interactions, SplitInteractions
    from reaemb_bench.encoding.backbone import Loaded
    from reaemb_bench.encoding.model import ThoughtModel
    from reaemb_bench.encoding.prefix import Prefix
    from reaemb_bench.heads.examples import Examples
    from reaemb_bench.heads.packing import Packed
    from reaemb_bench.policies.rollouts import LogDensity, Rollouts


class Source(Protocol):
    """Where interactions and item attributes come from. A class attribute `about`, if there is one, is an `About`."""

    def read(self, machine: Machine) -> Interactions:
        """All interactions and the attributes of all items, exact duplicates removed."""


class Filter(Protocol):
    """Takes interactions away."""

    def apply(self, data: Interactions) -> Interactions:
        """The interactions that remain."""


class Split(Protocol):
    """Divides interactions into training, validation and test."""

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """The division; the seed orders interactions of equal time."""


class Prompt(Protocol):
    """Writes an item's attributes as text."""

    def text(self, attributes: dict[str, Any]) -> str:
        """`name is value; name is value; ...` for one item."""


class Backbone(Protocol):
    """A causal language model."""

    def prepare(self, corpus: Corpus, folder: Path, machine: Machine, seed: int) -> None:
        """Write into `folder` what must travel with the encoder (the weights of a model made here, or nothing)."""

    def load(self, folder: Path, machine: Machine) -> Loaded:
        """The model and its tokenizer, ready on the machine's device."""


class Reasoner(Protocol):
    """Computes latent thoughts from the hidden states of the prompt."""

    @property
    def thoughts(self) -> int:
        """Number j of thoughts, 0 for a reasoner that has none."""

    def thought_scale(self, embedding_rms: float) -> float:
        """The root mean square at which thoughts are injected; 1.0 where they are not scaled."""

    def build(self, width: int, embedding_rms: float) -> torch.nn.Module | None:
        """The module: forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d)."""


class Pooling(Protocol):
    """Makes one vector of hidden states."""

    def pool(self, states: Tensor, mask: Tensor, thoughts: int) -> Tensor:
        """(n, L, d), (n, L) -> (n, d). The sequence is left-padded and ends with j thought tokens and EOS."""


class Loss(Protocol):
    """A contrastive loss over pairs of views."""

    initial_temperature: float

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""


class Cooccurrence(Protocol):
    """Says which items are bought together, and how much so."""

    def counts(self, sequences: Sequences, items: int) -> csr_array:
        """Positive counts or weights (items, items) from users' sequences: symmetric, the diagonal empty."""


class Reward(Protocol):
    """Scores how a rollout ranks its candidates."""

    def reward(self, scores: Tensor, weights: Tensor) -> Tensor:
        """scores (groups, G, N), the clean rollout first; weights (groups, 1, N): the share of each positive among the
        group's positives, 0 for negatives -> (groups, G).
        """


class Advantage(Protocol):
    """Turns the rewards of groups into advantages."""

    def advantage(self, rewards: Tensor) -> Tensor:
        """(groups, G), the clean rollout first -> (groups, G)."""


class Policy(Protocol):
    """The stochastic policy over thoughts and its clipped objective."""

    def log_density(self, model: ThoughtModel, prefix: Prefix, means: Tensor, rollouts: Rollouts) -> LogDensity:
        """Log-densities (n, terms) of n rollouts; prefix: one prompt a group, means (n, j, d) carry gradient."""

    def loss(self, new: LogDensity, old: Tensor, advantages: Tensor) -> Tensor:
        """The objective to minimise: old (n, terms) at sampling time, advantages (n,) -> scalar."""


class Reducer(Protocol):
    """Maps item vectors to fewer or better-conditioned dimensions."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions)."""


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


class Scorer(Protocol):
    """Scores the whole catalogue for users' histories."""

    def scores(self, histories: Sequences) -> Float32:
        """(users, items), higher is better."""


class Floor(Protocol):
    """A method that learns nothing but counts."""

    def fit(self, corpus: Corpus) -> Scorer:
        """A scorer from training counts."""


AnySource = Annotated[Source, Pick("source")]
AnySplit = Annotated[Split, Pick("split")]
AnyPrompt = Annotated[Prompt, Pick("prompt")]
AnyBackbone = Annotated[Backbone, Pick("backbone")]
AnyReasoner = Annotated[Reasoner, Pick("reasoner")]
AnyPooling = Annotated[Pooling, Pick("pooling")]
AnyLoss = Annotated[Loss, Pick("loss")]
AnyCooccurrence = Annotated[Cooccurrence, Pick("cooccurrence")]
AnyReward = Annotated[Reward, Pick("reward")]
AnyAdvantage = Annotated[Advantage, Pick("advantage")]
AnyPolicy = Annotated[Policy, Pick("policy")]
AnyReducer = Annotated[Reducer, Pick("reducer")]
AnyItemTable = Annotated[ItemTable, Pick("item-table")]
AnyHead = Annotated[Head, Pick("head")]
AnyObjective = Annotated[Objective, Pick("objective")]
ManyFilters = Annotated[tuple[Filter, ...], Pick("filter", many=True)]
ManyFloors = Annotated[tuple[Floor, ...], Pick("floor", many=True)]


def methods_of(kind: str) -> tuple[str, ...]:
    """Names of the methods that a component of a kind must have; none for a step, whose `run` is its own."""
    for each in globals().values():
        pick = next((mark for mark in getattr(each, "__metadata__", ()) if isinstance(mark, Pick)), None)
        if pick is not None and pick.kind == kind:
            protocol = get_args(each.__origin__)[0] if pick.many else each.__origin__
            return tuple(name for name, value in vars(protocol).items() if callable(value) and name[0] != "_")
    return ()
