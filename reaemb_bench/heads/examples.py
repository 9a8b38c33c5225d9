"""What a recommender is asked in training: histories, and items to be predicted at some of their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reaemb_bench.artifacts import Int64, Sequences
from reaemb_bench.heads.packing import newest

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
