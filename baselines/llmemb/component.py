"""LLMEmb's recommendation adaptation: adapted vectors are held close to the item table of a trained recommender."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Int64, Ranker, ValidationTargets, Vectors
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.losses.info_nce import InfoNCE
from reaemb_bench.recommender.fit import TrainSettings, fit
from reaemb_bench.recommender.kinds import AnyItemTable


class TrainAligned(TrainSettings):
    """Train a head over item vectors whose adapted form must identify the same item's row of a trained id table.

    The loss is the objective plus `weight` times a symmetric InfoNCE between the two vectors of each item of a batch;
    the id table is fixed. Source: arXiv 2409.19925, recommendation adaptation training.
    """

    items: AnyItemTable = "frozen"  # type: ignore[assignment]
    """Where its item vectors come from."""
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
            return self.weight * InfoNCE().loss(table[items], ids[items], temperature)

        return fit(corpus, validation_targets, vectors.values, self.items, self, context, alignment)
