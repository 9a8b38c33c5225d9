"""Items by title, and the items whose vectors are nearest to one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Float64, Vectors
from reaemb_bench.core.errors import UserError

_LISTED = 10
_LIKENESS = 0.6


@dataclass(frozen=True)
class Neighbor:
    """An item by its number, and the cosine of its vector with the one asked about."""

    item: int
    cosine: float


def find_item(corpus: Corpus, wanted: str) -> int:
    """The number of the item with this id, else this title, else the only one whose title contains `wanted`.

    If there is none, the title that is spelt most alike is taken. Raises UserError if several items are meant, naming
    them, or none is.
    """
    if wanted in corpus.item_keys:
        return item_with_id(corpus, wanted)
    titles = [title.casefold() for title in corpus.titles]
    sought = wanted.casefold()
    items = [item for item, title in enumerate(corpus.titles) if title == wanted]
    items = items or [item for item, title in enumerate(titles) if title == sought]
    items = items or [item for item, title in enumerate(titles) if sought.strip() and sought.strip() in title]
    if not items:
        alike = difflib.get_close_matches(sought, titles, n=1, cutoff=_LIKENESS)
        items = [item for item, title in enumerate(titles) if title in alike]
    if not items:
        raise UserError(f"no item of {corpus.name} has the id or a title like '{wanted}'; give a part of a title")
    if len(items) > 1:
        named = ", ".join(f"{corpus.titles[item]} [{corpus.item_keys[item]}]" for item in items[:_LISTED])
        more = f" and {len(items) - _LISTED:,} more" if len(items) > _LISTED else ""
        raise UserError(f"'{wanted}' may mean {len(items):,} items: {named}{more}; give more of it, or an [id]")
    return items[0]


def item_with_id(corpus: Corpus, key: str) -> int:
    """The number of the item with this id. Raises UserError if there is none."""
    if key not in corpus.item_keys:
        raise UserError(f"no item of {corpus.name} has the id '{key}'")
    return corpus.item_keys.index(key)


def nearest(vectors: Vectors, item: int, count: int) -> list[Neighbor]:
    """The `count` other items with the highest cosine, highest first, the lower number first if they are equal.

    Items whose vector is all zeros have no direction and are left out. Raises UserError if `item` is one of them.
    """
    query = np.zeros(0)
    start = 0
    for block in vectors.blocks():
        if start <= item < start + len(block):
            query = np.asarray(block[item - start], dtype=np.float64)
        start += len(block)
    if item >= start:
        raise UserError(f"there are {start} vectors and none for item {item}")
    length = float(np.linalg.norm(query))
    if not length:
        raise UserError("the vector of this item is all zeros, so nothing is near it")
    cosines = np.concatenate([_cosines(block, query / length) for block in vectors.blocks()])
    cosines[item] = -np.inf
    order = np.argsort(-cosines, kind="stable")[:count]
    return [Neighbor(int(other), float(cosines[other])) for other in order if np.isfinite(cosines[other])]


def _cosines(block: np.ndarray, direction: Float64) -> Float64:
    """Cosines (n,) of rows (n, width) with a direction of length 1; -inf if a row is all zeros."""
    rows = block.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1)
    cosines: Float64 = np.where(lengths > 0, rows @ direction / np.where(lengths > 0, lengths, 1.0), -np.inf)
    return cosines
