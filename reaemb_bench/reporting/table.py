"""A table of numbers, before anybody decides how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

DECIMALS = 4


@dataclass(frozen=True)
class Column:
    """A column of numbers: a metric, and whose or which protocol's it is; empty for all users and the whole catalogue.

    Higher is better in all of them.
    """

    metric: str
    part: str = ""

    @property
    def name(self) -> str:
        """The heading in one line."""
        return f"{self.metric} {self.part}".strip()


@dataclass(frozen=True)
class Cell:
    """A number, its standard deviation over seeds, and whether it is the best of its column; None: there is none."""

    value: float | None
    sd: float | None = None
    best: bool = False

    @property
    def missing(self) -> bool:
        """There is no such number, for example because a group is empty."""
        return self.value is None


@dataclass(frozen=True)
class Row:
    """A method and its numbers, one cell a column; floor: it learns nothing; leaks: it saw held-out data on purpose."""

    name: str
    cells: tuple[Cell, ...]
    floor: bool = False
    leaks: bool = False


@dataclass(frozen=True)
class Table:
    """What every renderer takes: `columns` of numbers beside the rows' names, and `notes` that stand below."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


MISSING = "—"
"""Stands where there is no number."""
LEAK = "†"
"""Stands behind the name of a row that saw held-out data on purpose."""


def number(value: float) -> str:
    """Four decimals without the leading zero: `.0503`, `1.0000`."""
    return f"{value:.{DECIMALS}f}".removeprefix("0")


def mark_best(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same rows with the highest number of each column marked, and whatever prints the same; a lone row is not."""
    if len(rows) < 2:
        return tuple(rows)
    highest = []
    for cells in zip(*(row.cells for row in rows), strict=True):
        shown = [round(cell.value, DECIMALS) for cell in cells if cell.value is not None]
        highest.append(max(shown, default=None))
    return tuple(
        replace(
            row,
            cells=tuple(
                replace(cell, best=cell.value is not None and round(cell.value, DECIMALS) == top)
                for cell, top in zip(row.cells, highest, strict=True)
            ),
        )
        for row in rows
    )
