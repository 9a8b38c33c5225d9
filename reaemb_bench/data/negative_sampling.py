"""Uniform draws of items that a row does not have yet: a user's untouched items, an item's strangers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.artifacts import Int32, Int64

_SCARCE = 4
"""A row is scarce if fewer times as many items are left as are drawn for it."""
_CELLS = 10_000_000
"""Random numbers that are sorted at once."""
_BLOCK = 50_000
"""Rows that are compared with what they know at once."""


def draw_unknown(rows: Int64, known: Int64, items: int, wanted: int, rng: np.random.Generator) -> Int32:
    """Returns, for each of `rows` (n,), distinct items that it does not know, uniformly and in random order.

    known: ascending codes row * items + item, each once. The result is (n, c) item numbers, where c is `wanted`, or
    fewer if some row knows so much that fewer items are left: all rows have the same number.
    """
    left = items - np.diff(np.searchsorted(known, np.stack([rows, rows + 1], axis=1) * items), axis=1)[:, 0]
    count = int(min(wanted, items, left.min(initial=wanted)))
    drawn = np.empty((len(rows), count), dtype=np.int32)
    # Rejection needs few rounds if items abound; if they are scarce, each row sorts the whole catalogue.
    scarce = left < _SCARCE * count
    drawn[~scarce] = _by_rejection(rows[~scarce], known, items, count, rng)
    places = np.flatnonzero(scarce)
    for chunk in np.array_split(places, max(1, -(-len(places) * items // _CELLS))):
        order = rng.random((len(chunk), items))
        order[_among(rows[chunk, None] * items + np.arange(items), known)] = 2.0
        drawn[chunk] = np.argsort(order, axis=1)[:, :count].astype(np.int32)
    return drawn


def _by_rejection(rows: Int64, known: Int64, items: int, count: int, rng: np.random.Generator) -> Int32:
    """Draws (n, count) items and draws those anew that repeat or are known, until none does."""
    drawn = np.empty((len(rows), count), dtype=np.int32)
    for start in range(0, len(rows), _BLOCK):
        drawn[start : start + _BLOCK] = rng.integers(items, size=drawn[start : start + _BLOCK].shape, dtype=np.int64)
    unfinished = np.arange(len(rows) if count else 0)
    while True:
        wrong = []
        for block in np.array_split(unfinished, -(-len(unfinished) // _BLOCK) or 1):
            ordered = np.sort(drawn[block], axis=1)
            repeated = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
            # A row knows fewer items than are drawn for it, as a rule, so the known are looked up among the drawn.
            starts, ends = (np.searchsorted(known, (rows[block] + row) * items) for row in (0, 1))
            owners = np.repeat(np.arange(len(block)), ends - starts)
            known_at = np.arange(len(owners)) + np.repeat(ends - np.cumsum(ends - starts), ends - starts)
            codes = (np.arange(len(block))[:, None] * items + ordered).ravel()
            repeated[owners[_among(owners * items + known[known_at] % items, codes)]] = True
            wrong.append(repeated)
        unfinished = unfinished[np.concatenate(wrong)]
        if not len(unfinished):
            return drawn
        part = drawn[unfinished].astype(np.int64)
        order = np.argsort(part, axis=1, kind="stable")
        ordered = np.take_along_axis(part, order, axis=1)
        repeats = np.zeros(part.shape, dtype=bool)
        repeats[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        bad = np.empty_like(repeats)
        np.put_along_axis(bad, order, repeats, axis=1)
        bad |= _among(rows[unfinished, None] * items + part, known)
        part[bad] = rng.integers(items, size=int(bad.sum()))
        drawn[unfinished] = part


def _among(codes: Int64, known: Int64) -> npt.NDArray[np.bool_]:
    result: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, codes), len(known) - 1)] == codes
    return result
