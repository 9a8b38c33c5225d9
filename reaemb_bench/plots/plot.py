"""What every plot is, before a page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from reaemb_bench.reporting.table import Table


@dataclass(frozen=True)
class Look:
    """How a line is drawn: colour as `#rrggbb`, dashes in points (none: solid), and a marker: o, s, ^, D, v."""

    colour: str
    dashes: tuple[float, ...]
    marker: str


@dataclass(frozen=True)
class Entry:
    """A line of the legend."""

    name: str
    look: Look


@dataclass(frozen=True)
class Panel:
    """One picture: heading and alternative text are plain, svg is an `<svg>` element without a name from outside."""

    heading: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Plot:
    """Panels that share a legend. readings: what they show, computed from the numbers; notes: how to read them."""

    title: str
    panels: tuple[Panel, ...]
    legend: tuple[Entry, ...]
    readings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    numbers: Table | None = None


_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#44a5d8", "#6b4c9a", "#333333")
_GREYS = ("#9aa0a8", "#777d86", "#5b616a", "#3f444b")
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 2), (8, 2, 2, 2))
_MARKERS = ("o", "s", "^", "D", "v")


def method_look(place: int) -> Look:
    """The look of the run at this place; lines that lie on each other show both colours, for their dashes differ."""
    return Look(_COLOURS[place % len(_COLOURS)], _DASHES[place % len(_DASHES)], _MARKERS[place % len(_MARKERS)])


def floor_look(place: int) -> Look:
    """The look of the floor at this place: grey, whatever the runs."""
    return Look(_GREYS[place % len(_GREYS)], ((1.5, 2), *_DASHES[1:])[place % len(_DASHES)], "")
