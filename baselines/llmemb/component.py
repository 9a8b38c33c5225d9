"""LLMEmb's recommendation adaptation: adapted vectors are held close to the item table of a trained recommender."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Int64, Ranker, ValidationTargets, Vectors
from reaemb_bench.core.component import Component, Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.kinds import AnyLoss
from reaemb_bench.encoder.losses.info_nce import InfoNCE
from reaemb_bench.recommender.fit import TrainSettings, fit
from reaemb_bench.recommender.kinds import AnyItemTable


class AuthorsLoss(Component):
    """The loss of the authors' code: cross-entropy between inner products and soft targets, both trained.

    logits = X·Yᵀ/τ; targets = softmax of τ·(X·Xᵀ + Y·Yᵀ)/2 by rows, multiplied by the temperature where `soft-target`
    divides; the loss is the mean over rows of ½ [CE(logits, targets) + CE(logitsᵀ, targetsᵀ)].
    Source: github.com/liuqidong07/LLMEmb, llm/llama.py and models/utils.py.
    """

    initial_temperature: float = Field(default=3.0, gt=0)
    """Temperature τ at the first step."""

    def loss(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """Scalar loss of two views (n, d) of the same n items."""
        logits = first @ second.T / temperature
        targets = self.targets(first, second, temperature)
        both = targets * logits.log_softmax(dim=1) + targets.T * logits.T.log_softmax(dim=1)
        return -both.sum(dim=1).mean() / 2

    def targets(self, first: Tensor, second: Tensor, temperature: Tensor) -> Tensor:
        """The soft targets (n, n) of the rows."""
        return torch.softmax((first @ first.T + second @ second.T) / 2 * temperature, dim=1)


class TrainAligned(TrainSettings):
    """Train a head over item vectors whose adapted form must identify the same item's row of a trained id table.

    The loss is the objective plus `weight` times a contrastive loss between the two vectors of each item of a batch;
    the id table is fixed. Source: arXiv 2409.19925, recommendation adaptation training.
    """

    version: ClassVar[int] = 3

    items: AnyItemTable = "frozen"  # type: ignore[assignment]
    """Where its item vectors come from."""
    loss: AnyLoss = InfoNCE(similarity="centred-cosine")  # type: ignore[assignment]
    """The contrastive loss between an item's two vectors."""
    weight: float = Field(default=0.01, ge=0)
    """Weight of the alignment in the loss."""
    temperature: float = Field(default=2.0, gt=0)
    """Temperature of the alignment's softmax."""

    def run(
        self, corpus: Corpus, validation_targets: ValidationTargets, vectors: Vectors, ranker: Ranker, context: Context
    ) -> Ranker:
        """The recommender at its best epoch. ranker: the recommender over ids, trained before.

        Raises UserError if the shape of the id table is not that of the head's.
        """
        shape, wanted = ranker.tensors["vectors"].shape, (corpus.items, self.head.hidden)
        if shape != wanted:
            raise UserError(
                f"the id table is {shape} and this head's is {wanted}; give both recommenders the same `hidden`"
            )
        device = context.machine.torch_device()
        ids = torch.from_numpy(ranker.tensors["vectors"]).to(device)
        temperature = torch.tensor(self.temperature, device=device)

        def alignment(_: nn.Module, table: Tensor, users: Int64) -> Tensor:
            items = torch.from_numpy(np.unique(corpus.training.select(users).items)).to(device)
            return self.weight * self.loss.loss(ids[items], table[items], temperature)

        return fit(corpus, validation_targets, vectors.values, self.items, self, context, alignment)
