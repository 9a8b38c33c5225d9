"""Two views of an item text by attribute dropout."""

from __future__ import annotations

from numpy.random import Generator

_ATTEMPTS = 16


def two_views(text: str, drop: float, draw: Generator) -> tuple[str, str]:
    """Two texts of the same attributes, each shuffled and with a share `drop` of them left out.

    Attributes are separated by ";". int(attributes * drop) are left out of each view. The views differ where they
    can: a text of one attribute gives the same view twice. Source: arXiv 2606.16703, Stage I.
    """
    attributes = [part for part in (part.strip() for part in text.split(";")) if part]
    if len(set(attributes)) < 2:
        return text, text
    first = _view(attributes, drop, draw)
    for _ in range(_ATTEMPTS):
        second = _view(attributes, drop, draw)
        if second != first:
            break
    else:
        # Two distinct attributes that always come out alike, by bad luck: an order read backwards is another view.
        second = "; ".join(reversed(first.split("; ")))
    return first, second


def _view(attributes: list[str], drop: float, draw: Generator) -> str:
    kept = len(attributes) - int(len(attributes) * drop)
    return "; ".join(attributes[place] for place in draw.permutation(len(attributes))[:kept])
