"""A table of numbers, before anybody decides how it looks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

DECIMALS = 4


@dataclass(frozen=True)
class Column:
    """A column of numbers: a metric, and whose or which protocol's it is; empty for all users and the whole catalogue.

    Higher is better, but for a cost, which is shown with three digits and never marked. difference: of two methods,
    shown with its sign.
    """

    metric: str
    part: str = ""
    cost: bool = False
    difference: bool = False

    @property
    def name(self) -> str:
        """The heading in one line."""
        return f"{self.metric} {self.part}".strip()

    def shown(self, value: float) -> str:
        """A number of this column as people read it."""
        if self.difference:
            return signed(value)
        return quantity(value) if self.cost else number(value)


@dataclass(frozen=True)
class Cell:
    """A number, its standard deviation over seeds, and whether it is the best of its column; None: there is none.

    second: the next best where a table marks it. significant: a test shows that it beats the best baseline.
    interval: its lower and upper bound, where it has one. verdict: what a test says of it, in a word or two.
    """

    value: float | None
    sd: float | None = None
    best: bool = False
    second: bool = False
    significant: bool = False
    interval: tuple[float, float] | None = None
    verdict: str = ""

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
SIGNIFICANT = "*"
"""Stands behind a number that beats the best baseline."""
_SUFFIXES = ("", "k", "M", "G", "T")


def number(value: float) -> str:
    """Four decimals without the leading zero: `.0503`, `1.0000`."""
    return f"{value:.{DECIMALS}f}".removeprefix("0")


def signed(value: float) -> str:
    """As `number`, with its sign: `+.0503`, `-.0021`."""
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"


def quantity(value: float) -> str:
    """Three digits and a power of 1000: `0.0123`, `12.3`, `4.56k`, `135M`."""
    power = 0
    while abs(float(f"{value:.3g}")) >= 1000 and power < len(_SUFFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{float(f'{value:.3g}'):g}{_SUFFIXES[power]}"


def mark_best(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same rows with the highest number of each column marked, and whatever prints the same; a lone row is not."""
    return _marked(rows, 0, lambda cell: replace(cell, best=True))


def mark_second(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same rows with the next number below the highest of each column marked, and whatever prints the same."""
    return _marked(rows, 1, lambda cell: replace(cell, second=True))


def _marked(rows: Sequence[Row], place: int, mark: Callable[[Cell], Cell]) -> tuple[Row, ...]:
    if len(rows) < 2:
        return tuple(rows)
    wanted = []
    for cells in zip(*(row.cells for row in rows), strict=True):
        shown = sorted({round(cell.value, DECIMALS) for cell in cells if cell.value is not None}, reverse=True)
        wanted.append(shown[place] if place < len(shown) else None)
    return tuple(
        replace(
            row,
            cells=tuple(
                mark(cell) if cell.value is not None and round(cell.value, DECIMALS) == value else cell
                for cell, value in zip(row.cells, wanted, strict=True)
            ),
        )
        for row in rows
    )
