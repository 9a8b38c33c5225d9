"""A table of results as Markdown."""

from __future__ import annotations

from reaemb_bench.reporting.table import LEAK, MISSING, SIGNIFICANT, Cell, Column, Row, Table


def render(table: Table) -> str:
    """A heading, a pipe table with the best numbers in bold, and the notes as a list."""
    names = [_safe(column.name) for column in table.columns]
    lines = [f"### {_safe(table.title)}", ""] if table.title else []
    lines += [_line(["method", *names]), _line(["---", *("---:" for _ in names)])]
    for row in table.rows:
        cells = zip(table.columns, row.cells, strict=True)
        lines.append(_line([_name(row), *(_cell(column, cell) for column, cell in cells)]))
    if table.notes:
        lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _name(row: Row) -> str:
    name = f"{row.name} {LEAK}" if row.leaks else row.name
    return f"*{_safe(name)}*" if row.floor else _safe(name)


def _cell(column: Column, cell: Cell) -> str:
    if cell.value is None:
        return MISSING
    value = column.shown(cell.value)
    if cell.best or cell.second:
        value = f"**{value}**" if cell.best else f"<u>{value}</u>"
    if cell.significant:
        value += f"\\{SIGNIFICANT}"
    if cell.sd is not None:
        value += f" ± {column.shown(cell.sd)}"
    if cell.interval is not None:
        value += f" ({' to '.join(map(column.shown, cell.interval))})"
    return f"{value} {cell.verdict}".rstrip()
