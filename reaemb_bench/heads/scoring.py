"""A trained recommender as a scorer of the whole catalogue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reaemb_bench.artifacts import Float32, Ranker, Sequences
from reaemb_bench.errors import UserError
from reaemb_bench.heads.batching import pad
from reaemb_bench.machine import Machine
from reaemb_bench.registry import build


@dataclass(frozen=True)
class NetworkScorer:
    """Scores items by the inner product with the state at a history's last position."""

    network: nn.Module
    vectors: Tensor

    @torch.inference_mode()
    def scores(self, histories: Sequences) -> Float32:
        """(users, items); users without a history get zeros, which ranks at chance."""
        max_length, left = int(self.network.max_length), bool(self.network.left_padded)  # type: ignore[arg-type]
        batch = pad(histories, max_length, left=left, device=self.vectors.device)
        states = self.network(batch.items, batch.lengths, self.vectors)
        last = states[:, -1] if left else states[torch.arange(len(states)), (batch.lengths - 1).clamp(min=0)]
        scored: Float32 = (last * (batch.lengths > 0)[:, None] @ self.vectors.T).cpu().numpy()
        return scored


def open_ranker(ranker: Ranker, machine: Machine) -> NetworkScorer:
    """The scorer that a `train` step saved. Raises UserError where the tensors do not fit the head."""
    device = machine.torch_device()
    tensors = {name: torch.from_numpy(array) for name, array in ranker.tensors.items()}
    vectors = tensors.pop("vectors").to(device)
    network = build("head", ranker.head).build(nn.Identity())  # type: ignore[attr-defined]
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("table.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(
            f"the stored ranker does not fit its head ({str(error).splitlines()[0]}); train it again"
        ) from None
    return NetworkScorer(network.to(device).eval(), vectors)
