"""Kinds of component that an encoder is made of. Shapes: n prompts, L tokens, d hidden size, j thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from reaemb_bench.core.artifacts import Corpus, Vectors
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import Pick

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from reaemb_bench.encoder.language_model import Loaded


class Backbone(Protocol):
    """A causal language model."""

    def prepare(self, corpus: Corpus, folder: Path, machine: Machine, seed: int) -> None:
        """Writes into `folder` what belongs to the encoder: the weights of a model made here, or nothing."""

    def load(self, folder: Path, machine: Machine) -> Loaded:
        """The model and its tokenizer, ready on the machine's device."""


class Reasoner(Protocol):
    """Computes latent thoughts from the hidden states of the prompt."""

    @property
    def thoughts(self) -> int:
        """Number j of thoughts, 0 for a reasoner without any."""

    def thought_scale(self, embedding_rms: float) -> float:
        """The root mean square at which thoughts are injected; 1.0 if they are not scaled."""

    def build(self, width: int, embedding_rms: float) -> torch.nn.Module | None:
        """The module: forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d)."""


class Pooling(Protocol):
    """Pools hidden states into one vector."""

    def pool(self, states: Tensor, mask: Tensor, thoughts: int) -> Tensor:
        """(n, L, d), (n, L) -> (n, d). The sequence is left-padded and ends with j thought tokens and EOS."""


class Loss(Protocol):
    """A contrastive loss over pairs of views."""

    initial_temperature: float

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""


class Reducer(Protocol):
    """Maps item vectors to fewer or better-conditioned dimensions."""

    def reduce(self, vectors: Vectors) -> Vectors:
        """(items, width) -> (items, dimensions)."""


AnyBackbone = Annotated[Backbone, Pick("backbone")]
AnyReasoner = Annotated[Reasoner, Pick("reasoner")]
AnyPooling = Annotated[Pooling, Pick("pooling")]
AnyLoss = Annotated[Loss, Pick("loss")]
AnyReducer = Annotated[Reducer, Pick("reducer")]
