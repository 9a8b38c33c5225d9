"""Histories laid one behind the other, so that no layer ever reads padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reaemb_bench.core.artifacts import Int64, Sequences


@dataclass(frozen=True)
class Bucket:
    """Neighbouring users of similar length, as the grid that attention needs.

    grid: (users, width), the place of each position in the flat arrays; slots behind a history repeat its first place.
    real: (users, width), which slots are positions; None where all are. slots: the real slots' numbers in the flattened
    grid, in the order of the flat arrays; None where all are real. users: the range of users.
    """

    grid: Tensor
    real: Tensor | None
    slots: Tensor | None
    users: slice


@dataclass(frozen=True)
class Packed:
    """A batch of histories as flat tensors, each user's positions together and in time order.

    items: (positions,) item numbers. positions: (positions,), 1 = the oldest item that is read. lengths: (users,),
    at least 1. last: (users,), the place of each user's newest item. buckets cover all users in their order.
    """

    items: Tensor
    positions: Tensor
    lengths: Tensor
    last: Tensor
    buckets: tuple[Bucket, ...]


def newest(sequences: Sequences, count: int) -> Sequences:
    """The last `count` items of each sequence."""
    if sequences.lengths.max(initial=0) <= count:
        return sequences
    lengths = np.minimum(sequences.lengths, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    starts = sequences.offsets[1:] - lengths
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return Sequences(sequences.items[places], offsets)


def pack(histories: Sequences, max_length: int, device: torch.device, *, counted: int | None = None) -> Packed:
    """The last `max_length` items of every history; every user must have one.

    Users may stand in any order; sorted by length they fall into the fewest buckets. counted: positions are numbered
    from 1 within the last `counted` items, by default `max_length`.
    """
    read = newest(histories, max_length)
    lengths = read.lengths
    within = np.arange(len(read.items)) - np.repeat(read.offsets[:-1], lengths)
    before = np.minimum(histories.lengths, counted or max_length) - lengths

    def move(array: Int64) -> Tensor:
        return torch.from_numpy(array).to(device)

    return Packed(
        items=move(read.items.astype(np.int64)),
        positions=move(within + 1 + np.repeat(before, lengths)),
        lengths=move(lengths),
        last=move(read.offsets[1:] - 1),
        buckets=tuple(_bucket(read.offsets, lengths, users, device) for users in _runs(lengths)),
    )


def _runs(lengths: Int64) -> list[slice]:
    """Ranges of neighbours whose lengths round up to the same width: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ..."""
    power = 2 ** np.ceil(np.log2(lengths)).astype(np.int64)
    width = np.where(lengths <= power * 3 // 4, power * 3 // 4, power)
    cuts = np.flatnonzero(np.diff(width)) + 1
    edges = [0, *cuts.tolist(), len(lengths)]
    return [slice(start, stop) for start, stop in pairwise(edges) if stop > start]


def _bucket(offsets: Int64, lengths: Int64, users: slice, device: torch.device) -> Bucket:
    own, starts = lengths[users], offsets[:-1][users]
    columns = np.arange(int(own.max()))
    real = columns < own[:, None]
    grid = torch.from_numpy(starts[:, None] + np.where(real, columns, 0)).to(device)
    if real.all():
        return Bucket(grid, None, None, users)
    slots = torch.from_numpy(np.flatnonzero(real)).to(device)
    return Bucket(grid, torch.from_numpy(real).to(device), slots, users)


# What a recommender is asked in training: histories, and items to be predicted at some of their positions.


Copies = Literal["none", "last", "prefix"]


@dataclass(frozen=True)
class Examples:
    """inputs: a sequence a row. places: (n,), positions of the flat inputs at which `targets` (n,) are predicted.

    rows: (n,), the row of the batch to which each target belongs.
    """

    inputs: Sequences
    places: Int64
    targets: Int64
    rows: Int64


def next_items(sequences: Sequences, max_length: int, *, last_only: bool) -> Examples:
    """Each position predicts the item after it, or with `last_only` the last but one the last.

    The most recent `max_length` positions are read; every sequence has two items.
    """
    read = newest(sequences, max_length + 1)
    offsets = read.offsets - np.arange(read.users + 1)
    first = np.ones(len(read.items), dtype=bool)
    last = np.ones(len(read.items), dtype=bool)
    first[read.offsets[:-1]] = False
    last[read.offsets[1:] - 1] = False
    inputs = Sequences(read.items[last], offsets)
    places = offsets[1:] - 1 if last_only else np.arange(offsets[-1])
    return Examples(inputs, places, read.items[first][places].astype(np.int64), inputs.owners[places])


def masked_items(
    sequences: Sequences,
    max_length: int,
    items: int,
    generator: np.random.Generator,
    *,
    probability: float,
    kept: float,
    replaced: float,
    copies: Copies,
    prefixes: int = 1,
) -> Examples:
    """Positions chosen at random are to be restored; item number `items` is the mask.

    Each of the most recent `max_length` positions is chosen with `probability`, and the last one where none is. Of the
    chosen, a share `kept` still shows its item, a share `replaced` a random one, the others the mask. copies: each
    sequence comes again with its last item masked, whole (`last`) or cut behind a random item, `prefixes` times.
    """
    read = newest(sequences, max_length)
    chosen = generator.random(len(read.items)) < probability
    without = np.add.reduceat(chosen, read.offsets[:-1]) == 0
    chosen[read.offsets[1:][without] - 1] = True
    places = np.flatnonzero(chosen)
    shown = read.items.copy()
    fate = generator.random(len(places))
    random = generator.integers(items, size=len(places))
    shown[places] = np.where(fate < kept, read.items[places], np.where(fate < kept + replaced, random, items))
    rows = read.owners[places]
    targets = read.items[places].astype(np.int64)
    if copies == "none":
        return Examples(Sequences(shown, read.offsets), places, targets, rows)
    again, owners = read, np.arange(read.users)
    if copies == "prefix":
        again, owners = _prefixes(read.select(np.tile(owners, prefixes)), generator)
    final = again.offsets[1:] - 1
    hidden = again.items.copy()
    hidden[final] = items
    return Examples(
        Sequences(np.concatenate([shown, hidden]), np.concatenate([read.offsets, again.offsets[1:] + len(shown)])),
        np.concatenate([places, final + len(shown)]),
        np.concatenate([targets, again.items[final].astype(np.int64)]),
        np.concatenate([rows, owners % read.users]),
    )


def _prefixes(sequences: Sequences, generator: np.random.Generator) -> tuple[Sequences, Int64]:
    """Each sequence up to a random item, the first one only where there is no other; by length, and whose they are."""
    lengths = generator.integers(np.minimum(sequences.lengths, 2), sequences.lengths, endpoint=True)
    kept = np.arange(len(sequences.items)) < np.repeat(sequences.offsets[:-1] + lengths, sequences.lengths)
    prefixes = Sequences(sequences.items[kept], np.concatenate([[0], np.cumsum(lengths)]))
    # Neighbours of similar length share a grid in attention.
    order = np.argsort(lengths, kind="stable")
    return prefixes.select(order), order
