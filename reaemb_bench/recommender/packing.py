"""Histories packed one after the other, so that no layer ever computes padding.

Measured to beat padded batches; it is the reason why the heads are fast on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from reaemb_bench.core.artifacts import Int64, Sequences


@dataclass(frozen=True)
class Bucket:
    """Neighbouring users of similar length, as the grid that attention needs.

    grid: (users, width), the index of each position in the flat arrays; slots after the end of a history repeat its
    first index. real: (users, width), which slots are positions; None if all are. slots: the real slots' numbers in the
    flattened grid, in the order of the flat arrays; None if all are real. users: the range of users.
    """

    grid: Tensor
    real: Tensor | None
    slots: Tensor | None
    users: slice

    def unpack(self, projected: Tensor, attention_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each (users, heads, width, size), of projections (positions, 3 * hidden)."""
        users, width = self.grid.shape
        grid = projected.index_select(0, self.grid.view(-1)).view(users, width, 3, attention_heads, -1)
        query, key, value = grid.permute(2, 0, 3, 1, 4)
        return query, key, value

    def pack(self, attended: Tensor) -> Tensor:
        """(users, heads, width, size) -> (positions of the bucket, hidden)."""
        users, width = self.grid.shape
        flat = attended.transpose(1, 2).reshape(users * width, -1)
        return flat if self.slots is None else flat.index_select(0, self.slots)


@dataclass(frozen=True)
class Packed:
    """A batch of histories as flat tensors, each user's positions together and in time order.

    items: (positions,) item numbers. positions: (positions,), 1 = the oldest item that is read. lengths: (users,),
    at least 1. last: (users,), the index of each user's newest item. buckets cover all users in their order.
    """

    items: Tensor
    positions: Tensor
    lengths: Tensor
    last: Tensor
    buckets: tuple[Bucket, ...]


def pack(histories: Sequences, max_length: int, device: torch.device, *, counted: int | None = None) -> Packed:
    """The last `max_length` items of every history; every user must have one.

    Users may be in any order; sorted by length they fall into the fewest buckets. counted: positions are numbered
    from 1 within the last `counted` items, by default `max_length`.
    """
    read = newest(histories, max_length)
    lengths, offsets = read.lengths, read.offsets
    within = np.arange(len(read.items)) - np.repeat(offsets[:-1], lengths)
    before = np.minimum(histories.lengths, counted or max_length) - lengths

    # Widths of grids: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...; neighbours of the same width share a bucket.
    power = 2 ** np.ceil(np.log2(lengths)).astype(np.int64)
    width = np.where(lengths <= power * 3 // 4, power * 3 // 4, power)
    edges = [0, *(np.flatnonzero(np.diff(width)) + 1).tolist(), len(lengths)]
    buckets = []
    for start, stop in pairwise(edges):
        if start == stop:
            continue
        columns = np.arange(int(lengths[start:stop].max()))
        real = columns < lengths[start:stop, None]
        grid = torch.from_numpy(offsets[start:stop, None] + np.where(real, columns, 0)).to(device)
        marks, slots = None, None
        if not real.all():
            marks, slots = (torch.from_numpy(array).to(device) for array in (real, np.flatnonzero(real)))
        buckets.append(Bucket(grid, marks, slots, slice(start, stop)))

    flat = read.items.astype(np.int64), within + 1 + np.repeat(before, lengths), lengths, offsets[1:] - 1
    items, positions, lengths_there, last = (torch.from_numpy(array).to(device) for array in flat)
    return Packed(items, positions, lengths_there, last, tuple(buckets))


def newest(sequences: Sequences, count: int) -> Sequences:
    """The last `count` items of each sequence."""
    if sequences.lengths.max(initial=0) <= count:
        return sequences
    lengths = np.minimum(sequences.lengths, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    starts = sequences.offsets[1:] - lengths
    indices = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return Sequences(sequences.items[indices], offsets)


def windows(sequences: Sequences, length: int) -> tuple[Sequences, Int64]:
    """Each sequence cut into windows of at most `length` items, two or more; and the user of each window, (windows,).

    The newest window of a sequence is what `newest` reads. A window begins with the last item of the one before, so
    each item but the first of a sequence has a predecessor in exactly one window.
    """
    counts = np.maximum(-(-(sequences.lengths - 1) // (length - 1)), 1)
    users = np.repeat(np.arange(sequences.users), counts)
    newer = np.cumsum(counts)[users] - 1 - np.arange(len(users))
    ends = sequences.offsets[1:][users] - newer * (length - 1)
    starts = np.maximum(ends - length, sequences.offsets[:-1][users])
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    indices = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    return Sequences(sequences.items[indices], offsets), users


@dataclass(frozen=True)
class Examples:
    """What a head is trained on. inputs: one sequence per row.

    indices: (n,), indices of the flat inputs at which `targets` (n,) are predicted. rows: (n,), the row of the batch to
    which each target belongs.
    """

    inputs: Sequences
    indices: Int64
    targets: Int64
    rows: Int64


def next_items(sequences: Sequences, max_length: int, *, last_only: bool) -> Examples:
    """Each position predicts the item after it, or with `last_only` the last but one predicts the last.

    The most recent `max_length` positions are read; every sequence has two items.
    """
    read = newest(sequences, max_length + 1)
    offsets = read.offsets - np.arange(read.users + 1)
    inputs = Sequences(np.delete(read.items, read.offsets[1:] - 1), offsets)
    following = np.delete(read.items, read.offsets[:-1]).astype(np.int64)
    indices = offsets[1:] - 1 if last_only else np.arange(offsets[-1])
    return Examples(inputs, indices, following[indices], inputs.owners[indices])
