"""A table of numbers, and the strings that every format prints of its cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from reaemb_bench.core.text import printable

DECIMALS = 4
MISSING = "—"
"""Printed if there is no number."""
LEAK = "†"
"""Follows the name of a method that saw held-out data on purpose."""
SIGNIFICANT = "*"
"""Follows a number that beats the best baseline."""
UNLIKE = "≠"
"""Stands in the place of a number that cannot be compared with the others of its column."""
_SUFFIXES = ("", "k", "M", "G", "T")


@dataclass(frozen=True)
class Column:
    """A column of numbers: a metric, and the group of users or the protocol that it is for; empty for all users.

    cost: printed with three digits and never marked, because higher is not better. difference: of two methods, printed
    with its sign. group: heading over this column and its neighbours of the same group; by default the metric, if the
    column has a part. better: the direction in which numbers are better; None: higher, but neither of costs.
    """

    metric: str
    part: str = ""
    cost: bool = False
    difference: bool = False
    group: str = ""
    better: Literal["higher", "lower", ""] | None = None

    @property
    def name(self) -> str:
        """The heading in one line."""
        return f"{self.metric} {self.part}".strip()

    @property
    def arrow(self) -> str:
        """Points to where numbers are better; empty if neither direction is."""
        better = ("" if self.cost else "higher") if self.better is None else self.better
        return {"higher": "↑", "lower": "↓", "": ""}[better]

    @property
    def over(self) -> str:
        """The heading over the group of this column; empty if it stands alone."""
        return self.group or (self.metric if self.part else "")

    @property
    def below(self) -> str:
        """What its heading adds to that of its group."""
        if self.over.startswith(self.metric):
            return self.part or "all"
        return self.metric if self.over in ("", self.part) else self.name

    def shown(self, value: float) -> str:
        """A number of this column as it is printed."""
        if self.difference:
            return signed(value)
        return quantity(value) if self.cost else number(value)


@dataclass(frozen=True)
class Cell:
    """A number, or None if there is none (a group may be empty), and what is known of it.

    sd: standard deviation over seeds. best, second: the highest of its column and the next. significant: a test shows
    that it beats the best baseline. interval: lower and upper bound. verdict: what a test says of it, in a word or two.
    unlike: there is a number, but it cannot be compared with the others of its column.
    """

    value: float | None
    sd: float | None = None
    best: bool = False
    second: bool = False
    significant: bool = False
    interval: tuple[float, float] | None = None
    verdict: str = ""
    unlike: bool = False

    @property
    def missing(self) -> bool:
        """Whether there is no number."""
        return self.value is None


@dataclass(frozen=True)
class Row:
    """A method and its numbers, one cell a column. floor: it learns nothing. leaks: it saw held-out data on purpose."""

    name: str
    cells: tuple[Cell, ...]
    floor: bool = False
    leaks: bool = False

    @property
    def label(self) -> str:
        """The name, marked if the method saw held-out data."""
        return f"{self.name} {LEAK}" if self.leaks else self.name


@dataclass(frozen=True)
class Table:
    """What every format renders: rows of numbers, and notes below them.

    rows_are: heading of the first column. sortable: a page lets its reader sort the rows by any column. verdict: what
    the numbers say, in one sentence that stands above them.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    rows_are: str = "method"
    sortable: bool = False
    verdict: str = ""

    def first_columns(self, count: int) -> Table:
        """The same table with so many of its columns."""
        rows = tuple(replace(row, cells=row.cells[:count]) for row in self.rows)
        return replace(self, columns=self.columns[:count], rows=rows)

    def printable(self) -> Table:
        """The same table with texts from outside as every format may show them."""
        columns = [
            replace(column, metric=printable(column.metric), part=printable(column.part), group=printable(column.group))
            for column in self.columns
        ]
        rows = []
        for row in self.rows:
            cells = tuple(replace(cell, verdict=printable(cell.verdict)) for cell in row.cells)
            rows.append(replace(row, name=printable(row.name), cells=cells))
        return replace(
            self,
            title=printable(self.title),
            columns=tuple(columns),
            rows=tuple(rows),
            notes=tuple(map(printable, self.notes)),
            rows_are=printable(self.rows_are),
            verdict=printable(self.verdict),
        )


def headings(columns: Sequence[Column]) -> tuple[list[tuple[str, int]], list[str]]:
    """The headings over groups of columns, each with the number of its columns, and those of the columns below them.

    The arrow that says which direction is better stands once over a group that shares it, else at each column.
    """
    groups, below = [], []
    for over, members in groupby(columns, key=lambda column: column.over):
        inside = list(members)
        arrows = {column.arrow for column in inside} - {""} if over else set()
        shared = arrows.pop() if len(arrows) == 1 else ""
        groups.append((f"{over} {shared}".strip(), len(inside)))
        below += [column.below if shared else f"{column.below} {column.arrow}".strip() for column in inside]
    return groups, below


@dataclass(frozen=True)
class Markup:
    """How one format writes a cell: `{}` stands for a number or a verdict that `text` has escaped."""

    best: str
    second: str
    significant: str
    sd: str
    interval: str
    verdict: str
    missing: str = MISSING
    text: Callable[[str], str] = str


def cell_text(column: Column, cell: Cell, markup: Markup) -> str:
    """Everything a cell says, in one format's markup."""
    if cell.value is None:
        return markup.missing + (markup.text(UNLIKE) if cell.unlike else "")

    text = markup.text(column.shown(cell.value))
    if cell.best or cell.second:
        text = (markup.best if cell.best else markup.second).format(text)
    if cell.significant:
        text += markup.significant
    if cell.sd is not None:
        text += markup.sd.format(markup.text(column.shown(cell.sd)))
    if cell.interval is not None:
        text += markup.interval.format(*(markup.text(column.shown(bound)) for bound in cell.interval))
    if cell.verdict:
        text += markup.verdict.format(markup.text(cell.verdict))
    return text


def row_texts(table: Table, row: Row, markup: Markup) -> list[str]:
    """The texts of a row's cells."""
    return [cell_text(column, cell, markup) for column, cell in zip(table.columns, row.cells, strict=True)]


def number(value: float) -> str:
    """Four decimals without the leading zero: `.0503`, `1.0000`."""
    return f"{value:.{DECIMALS}f}".removeprefix("0")


def signed(value: float) -> str:
    """Four decimals with a sign, without the leading zero: `+.0503`, `-.0021`."""
    return f"{'-' if value < 0 else '+'}{number(abs(value))}"


def quantity(value: float) -> str:
    """Three digits and a power of 1000: `0.0123`, `12.3`, `4.56k`, `135M`."""
    power = 0
    while abs(float(f"{value:.3g}")) >= 1000 and power < len(_SUFFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{float(f'{value:.3g}'):g}{_SUFFIXES[power]}"


def mark_best(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same rows with the highest number of each column marked, and all that print the same; not in a lone row."""
    return _marked(rows, 0, lambda cell: replace(cell, best=True))


def mark_second(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same rows with the second highest number of each column marked, and all that print the same."""
    return _marked(rows, 1, lambda cell: replace(cell, second=True))


def _marked(rows: Sequence[Row], rank: int, mark: Callable[[Cell], Cell]) -> tuple[Row, ...]:
    if len(rows) < 2:
        return tuple(rows)
    columns = []
    for column in zip(*(row.cells for row in rows), strict=True):
        printed = [None if cell.value is None else round(cell.value, DECIMALS) for cell in column]
        wanted = sorted({value for value in printed if value is not None}, reverse=True)[rank : rank + 1]
        columns.append([mark(cell) if value in wanted else cell for cell, value in zip(column, printed, strict=True)])
    return tuple(replace(row, cells=tuple(cells)) for row, cells in zip(rows, zip(*columns, strict=True), strict=True))
