"""Uniform draws of items that a row does not know yet: a user's untouched items, an item's strangers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.artifacts import Int32, Int64

_DENSE = 4
_CELLS = 10_000_000


def draw_unknown(rows: Int64, known: Int64, items: int, wanted: int, rng: np.random.Generator) -> Int32:
    """For each of `rows` (n,), distinct items that it does not know, uniformly and in random order.

    known: ascending codes row * items + item, each once. Gives (n, c) item numbers, where c is `wanted`, or fewer if
    some row knows so much that fewer items are left: all rows have the same number.
    """
    left = items - np.diff(np.searchsorted(known, np.stack([rows, rows + 1], axis=1) * items), axis=1)[:, 0]
    count = int(min(wanted, items, left.min(initial=wanted)))
    made = np.empty((len(rows), count), dtype=np.int32)
    # Rejection needs few rounds where items abound; where they are scarce, each row sorts the whole catalogue.
    scarce = left < _DENSE * count
    made[~scarce] = _by_rejection(rows[~scarce], known, items, count, rng)
    places = np.flatnonzero(scarce)
    for chunk in np.array_split(places, max(1, -(-len(places) * items // _CELLS))):
        made[chunk] = _by_sorting(rows[chunk], known, items, count, rng)
    return made


def _by_rejection(rows: Int64, known: Int64, items: int, count: int, rng: np.random.Generator) -> Int32:
    drawn = rng.integers(items, size=(len(rows), count), dtype=np.int64)
    open_ = np.arange(len(rows) if count else 0)
    while len(open_ := _unfinished(open_, rows, drawn, known, items)):
        part = drawn[open_]
        order = np.argsort(part, axis=1, kind="stable")
        ordered = np.take_along_axis(part, order, axis=1)
        bad_ordered = np.zeros(part.shape, dtype=bool)
        bad_ordered[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        bad = np.empty_like(bad_ordered)
        np.put_along_axis(bad, order, bad_ordered, axis=1)
        bad |= _among(rows[open_, None] * items + part, known)
        part[bad] = rng.integers(items, size=int(bad.sum()))
        drawn[open_] = part
    return drawn.astype(np.int32)


def _unfinished(open_: Int64, rows: Int64, drawn: Int64, known: Int64, items: int) -> Int64:
    """Those of the places `open_` whose draws repeat or are known."""
    ordered = np.sort(drawn[open_], axis=1)
    wrong = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    # A row knows less than is drawn for it, as a rule, so the known are looked up among the drawn.
    starts, ends = np.searchsorted(known, rows[open_] * items), np.searchsorted(known, (rows[open_] + 1) * items)
    lengths = ends - starts
    places = np.repeat(np.arange(len(open_)), lengths)
    own = np.arange(len(places)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(starts, lengths)
    codes = (np.arange(len(open_))[:, None] * items + ordered).ravel()
    wrong[places[_among(places * items + known[own] % items, codes)]] = True
    left: Int64 = open_[wrong]
    return left


def _by_sorting(rows: Int64, known: Int64, items: int, count: int, rng: np.random.Generator) -> Int32:
    keys = rng.random((len(rows), items))
    keys[_among(rows[:, None] * items + np.arange(items), known)] = 2.0
    return np.argsort(keys, axis=1)[:, :count].astype(np.int32)


def _among(codes: Int64, known: Int64) -> npt.NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[places] == codes
    return found
