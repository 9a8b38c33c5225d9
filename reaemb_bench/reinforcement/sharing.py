"""How several processes share a step: each rolls out its groups and embeds its candidates, and all learn the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reaemb_bench.artifacts import Int64
from reaemb_bench.distributed import add_up, count, rank


def own_groups(groups: int) -> Int64:
    """Places of the groups that this process rolls out.

    Where a step has fewer groups than there are processes, one without a group of its own repeats the first, and
    `of_all` and `share_of` leave that out.
    """
    own = np.arange(rank(), groups, count())
    return own if len(own) else np.zeros(1, dtype=np.int64)


def of_all(own: Tensor, groups: int) -> Tensor:
    """The rows of all groups (groups, ...) in every process, from those of each process's own groups."""
    if count() == 1:
        return own
    made = own.new_zeros(groups, *own.shape[1:])
    mine = made[rank() :: count()]
    mine.copy_(own[: len(mine)])
    add_up([made])
    return made


def share_of(terms: Tensor, groups: int) -> Tensor:
    """What part of all processes' terms (a scalar) those of this process are."""
    own = terms.float() if rank() < groups else torch.zeros_like(terms, dtype=torch.float32)
    total = own.clone()
    add_up([total])
    return own / total
