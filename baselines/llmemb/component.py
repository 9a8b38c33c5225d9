"""LLMEmb's recommendation adaptation: adapted vectors are held close to the item table of a trained recommender."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Int64, Ranker, ValidationTargets, Vectors
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.losses.info_nce import InfoNCE
from reaemb_bench.recommender.fit import TrainSettings
from reaemb_bench.recommender.kinds import AnyItemTable

if TYPE_CHECKING:
    from reaemb_bench.recommender.fit import Penalty


class TrainAligned(TrainSettings):
    """Train a head over item vectors whose adapted form must tell which row of a trained id table is the same item's.

    The loss is the objective plus `weight` times a symmetric InfoNCE between the two vectors of each item that a batch
    contains; the id table is fixed. Source: arXiv 2409.19925, recommendation adaptation training.
    """

    items: AnyItemTable = "frozen"  # type: ignore[assignment]
    """Where its item vectors come from."""
    weight: float = Field(default=0.01, ge=0)
    """Weight of the alignment beside the objective."""
    temperature: float = Field(default=2.0, gt=0)
    """Temperature of the alignment's softmax."""

    def run(
        self, corpus: Corpus, validation_targets: ValidationTargets, vectors: Vectors, ranker: Ranker, context: Context
    ) -> Ranker:
        """The recommender at its best epoch. Raises UserError where the id table is of another shape than the head's.

        ranker: the recommender over ids, trained before.
        """
        from reaemb_bench.recommender.fit import fit

        shape, wanted = ranker.tensors["vectors"].shape, (corpus.items, self.head.hidden)
        if shape != wanted:
            raise UserError(
                f"the id table is {shape} and this head's is {wanted}; give both recommenders the same `hidden`"
            )
        return fit(
            corpus,
            validation_targets,
            vectors.values,
            self.items,
            self,
            context,
            self._alignment(corpus, ranker, context),
        )

    def _alignment(self, corpus: Corpus, ranker: Ranker, context: Context) -> Penalty:
        import torch

        device = context.machine.torch_device()
        ids = torch.from_numpy(ranker.tensors["vectors"]).to(device)
        temperature = torch.tensor(self.temperature, device=device)

        def alignment(_: torch.nn.Module, table: torch.Tensor, users: Int64) -> torch.Tensor:
            items = np.unique(corpus.training.select(users).items)
            places = torch.from_numpy(items).to(device)
            return self.weight * InfoNCE().loss(table[places], ids[places], temperature)

        return alignment
