"""A trained recommender as a scorer of the whole catalogue, and the step that ranks the test targets with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Corpus, Float32, Ranker, Ranks, Sequences, TestTargets
from reaemb_bench.core.component import Context, DataAccess, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.evaluation.comparability import equal_scores
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.recommender.kinds import Head


@dataclass(frozen=True)
class NetworkScorer:
    """Scores items by the inner product of their vectors with the state at the last position of the head's input."""

    head: Head
    network: nn.Module
    vectors: Tensor

    @torch.inference_mode()
    def scores(self, histories: Sequences) -> Float32:
        """(users, items); users without a history get zeros, which rank at chance."""
        items, device = len(self.vectors), self.vectors.device
        lengths = np.minimum(histories.lengths, self.head.max_length)
        # Sorted by length the histories fall into the fewest grids.
        users = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]
        states = torch.zeros(histories.users, self.vectors.shape[1], device=device)
        if len(users):
            packed = self.head.scoring_input(histories.select(users), items, device)
            states[torch.from_numpy(users).to(device)] = self.network(packed, self.vectors, packed.last)
        scored: Float32 = (states @ self.vectors.T).cpu().numpy()
        return scored


def open_ranker(ranker: Ranker, machine: Machine) -> NetworkScorer:
    """The scorer that a `train` step saved. Raises UserError if the tensors do not fit the head."""
    device = machine.torch_device()
    tensors = {name: torch.from_numpy(array) for name, array in ranker.tensors.items()}
    vectors = tensors.pop("vectors").to(device)
    head = cast("Head", build("head", ranker.head))
    network = head.build(nn.Identity())
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("table.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(
            f"the stored ranker does not fit its head ({str(error).splitlines()[0]}); train it again"
        ) from None
    return NetworkScorer(head, network.to(device).eval(), vectors)


class Rank(Step):
    """Rank each user's test target against the whole catalogue and against the stored sample."""

    data_access: ClassVar[DataAccess] = "test"

    top: int = Field(default=10, ge=0)
    """Length of the lists of recommended items that are kept, for coverage, Gini index and the like; 0 keeps none."""

    def run(self, corpus: Corpus, test_targets: TestTargets, ranker: Ranker, context: Context) -> Ranks:
        """One row per test user. Raises UserError if a score is not finite."""
        ranks = rank_targets(
            open_ranker(ranker, context.machine),
            test_targets.histories,
            test_targets.users,
            test_targets.targets,
            test_targets.candidates,
            popularity=corpus.popularity,
            top=self.top,
            report=context.report,
        )
        context.note({"users_with_equal_scores": equal_scores(ranks)})
        return ranks
