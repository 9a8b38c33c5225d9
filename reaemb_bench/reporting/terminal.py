"""A table of results as a rich table; it fits a terminal of 80 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from reaemb_bench.reporting.table import LEAK, MISSING, SIGNIFICANT, Cell, Column, Row, Table

_BESIDE = "not bold not underline dim"
"""Style of what stands below a number and belongs to it."""


def render(table: Table) -> RichTable:
    """Deviations, intervals, verdicts and parts stand on lines of their own, so that columns stay narrow; the best
    numbers are bold, the second best of a suite's table underlined."""
    made = RichTable(
        title=Text(table.title, style="bold"),
        caption=Text("\n".join(table.notes), style="dim"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    made.add_column("", overflow="fold", vertical="top")
    for column in table.columns:
        made.add_column(_heading(column), justify="right", vertical="top", no_wrap=True)
    for row, after in zip(table.rows, (*table.rows[1:], None), strict=True):
        ends_methods = after is not None and after.floor and not row.floor
        cells = zip(table.columns, row.cells, strict=True)
        made.add_row(_name(row), *(_cell(column, cell) for column, cell in cells), end_section=ends_methods)
    return made


def _heading(column: Column) -> Text:
    metric = column.metric.replace("@", "\n@")
    part = column.part.replace("-", "\n-")
    return Text(f"{metric}\n{part}".strip(), style="bold", justify="right")


def _name(row: Row) -> Text:
    style = "dim" if row.floor else ""
    return Text(f"{row.name} {LEAK}" if row.leaks else row.name, style=style)


def _cell(column: Column, cell: Cell) -> Text:
    if cell.value is None:
        return Text(MISSING, style="dim")
    shown = Text(column.shown(cell.value), style="bold" if cell.best else "underline" if cell.second else "")
    if cell.significant:
        shown.append(SIGNIFICANT, style="not underline")
    if cell.sd is not None:
        shown.append(f"\n±{column.shown(cell.sd)}", style=_BESIDE)
    if cell.interval is not None:
        shown.append(f"\n({' '.join(map(column.shown, cell.interval))})", style=_BESIDE)
    if cell.verdict:
        shown.append(f"\n{cell.verdict}", style="not bold not underline")
    return shown
