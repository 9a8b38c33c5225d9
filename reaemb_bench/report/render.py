"""A table of results as a rich table; it fits a terminal of 80 columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import write_atomically
from reaemb_bench.report.html import as_html
from reaemb_bench.report.table import LEAK, MISSING, SIGNIFICANT, Cell, Column, Row, Table

_BESIDE = "not bold not underline dim"
"""Style of what stands below a number and belongs to it."""


def render_terminal(table: Table) -> RichTable:
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


# A table of results as Markdown.


def render_markdown(table: Table) -> str:
    """A heading, a pipe table with the best numbers in bold, and the notes as a list."""
    names = [_safe(column.name) for column in table.columns]
    lines = [f"### {_safe(table.title)}", ""] if table.title else []
    lines += [_line(["method", *names]), _line(["---", *("---:" for _ in names)])]
    for row in table.rows:
        cells = zip(table.columns, row.cells, strict=True)
        lines.append(_line([_name_of_markdown(row), *(_cell_of_markdown(column, cell) for column, cell in cells)]))
    if table.notes:
        lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _safe(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _name_of_markdown(row: Row) -> str:
    name = f"{row.name} {LEAK}" if row.leaks else row.name
    return f"*{_safe(name)}*" if row.floor else _safe(name)


def _cell_of_markdown(column: Column, cell: Cell) -> str:
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


# A table of results as LaTeX, for the package booktabs.


_ESCAPED = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row they would be read as its options.
    **{character: f"{{{character}}}" for character in "[]*"},
    '"': "''",
    LEAK: r"\textdagger{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "→": r"$\rightarrow$",
    "—": "---",
    "…": r"\dots{}",
}
_ABSENT = "---"


def render_latex(table: Table) -> str:
    """A `table` environment: caption, rules, the best numbers bold and the second best underlined, notes below.

    Parts of metrics stand in a heading line of their own, so that columns stay narrow.
    """
    lines = [r"\begin{table}[htbp]", r"\centering"]
    if table.title:
        lines.append(rf"\caption{{{escaped(table.title)}}}")
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines += [*_headings(table.columns), r"\midrule"]
    for row, after in zip(table.rows, (*table.rows[1:], None), strict=True):
        lines.append(_line_of_latex([_name_of_latex(row), *map(_cell_of_latex, table.columns, row.cells)]))
        if after is not None and after.floor and not row.floor:
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        notes = "\\\\\n".join(escaped(note) for note in table.notes)
        lines += ["", rf"\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escaped(text: str) -> str:
    """The text as LaTeX prints it: every special character escaped, a space for what cannot be printed."""
    return "".join(_ESCAPED.get(each, each if each.isprintable() else " ") for each in text)


def _headings(columns: Sequence[Column]) -> list[str]:
    lines = [_line_of_latex(["", *(escaped(column.metric) for column in columns)])]
    if any(column.part for column in columns):
        lines.append(_line_of_latex(["", *(escaped(column.part) for column in columns)]))
    return lines


def _line_of_latex(cells: Sequence[str]) -> str:
    return " & ".join(cells).strip() + r" \\"


def _name_of_latex(row: Row) -> str:
    name = escaped(f"{row.name} {LEAK}" if row.leaks else row.name)
    return rf"\textit{{{name}}}" if row.floor else name


def _cell_of_latex(column: Column, cell: Cell) -> str:
    if cell.value is None:
        return _ABSENT
    made = _number(column, cell.value)
    if cell.best or cell.second:
        made = rf"\{'textbf' if cell.best else 'underline'}{{{made}}}"
    if cell.significant:
        made += f"$^{{{SIGNIFICANT}}}$"
    if cell.sd is not None:
        made += rf" {{\scriptsize $\pm$ {_number(column, cell.sd)}}}"
    if cell.interval is not None:
        made += rf" {{\scriptsize ({' to '.join(_number(column, bound) for bound in cell.interval)})}}"
    return f"{made} {escaped(cell.verdict)}".rstrip()


def _number(column: Column, value: float) -> str:
    shown = column.shown(value)
    # A hyphen is too short for a minus.
    return f"$-${shown[1:]}" if shown.startswith("-") else shown


# Tables as a picture of a terminal.


_COLUMNS = 80
_FONT = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)


def as_svg(title: str, tables: Sequence[Table]) -> str:
    """The tables as a terminal shows them, in whatever monospaced font there is; nothing is fetched from a network."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.terminal_theme import MONOKAI

    screen = Console(width=_COLUMNS, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for table in tables:
        screen.print(render_terminal(table))
    settings: dict[str, Any] = {"theme": MONOKAI, "code_format": _FONT.sub("", CONSOLE_SVG_FORMAT)}
    return screen.export_svg(title=title, unique_id="tables", **settings)


# Tables as files: Markdown and LaTeX to read, JSON and CSV to compute with.


def as_markdown(title: str, tables: Sequence[Table]) -> str:
    """A heading, then one pipe table after the other."""
    return "\n".join([f"## {title}\n", *(render_markdown(table) for table in tables)])


def as_json(title: str, tables: Sequence[Table]) -> str:
    """All numbers in full: `tables` of `rows` whose `cells` are named by column, null where there is none."""
    made = {"title": title, "tables": [_plain(table) for table in tables]}
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def as_csv(title: str, tables: Sequence[Table]) -> str:
    """A line a row of any table, each number followed by its deviation over seeds; notes are left out.

    A difference is followed by the bounds of its interval and its verdict instead.
    """
    lines = io.StringIO()
    numbers = dict.fromkeys(
        heading for table in tables for column in table.columns for heading in _in_columns(column, Cell(None))
    )
    writer = csv.DictWriter(lines, ["title", "table", "method", "floor", "leaks", *numbers], lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            made = {"title": title, "table": table.title, "method": row.name, "floor": row.floor, "leaks": row.leaks}
            for column, cell in zip(table.columns, row.cells, strict=True):
                made |= _in_columns(column, cell)
            writer.writerow(made)
    return lines.getvalue()


def as_latex(title: str, tables: Sequence[Table]) -> str:
    """A comment with the title and the package that the document needs, then one table after the other."""
    heading = f"% {' '.join(title.split())}; needs \\usepackage{{booktabs}}\n"
    return "\n".join([heading, *(render_latex(table) for table in tables)])


FORMATS: dict[str, Callable[[str, Sequence[Table]], str]] = {
    ".md": as_markdown,
    ".tex": as_latex,
    ".json": as_json,
    ".csv": as_csv,
    ".html": as_html,
    ".svg": as_svg,
}
"""File ending -> what makes the text of such a file from a title and tables."""


def check_ending(file: Path) -> None:
    """Raises UserError where no format has the file's ending."""
    if file.suffix not in FORMATS:
        raise UserError(f"--out {file}: the ending says the format; give one of {', '.join(FORMATS)}")


def write_tables(file: Path, title: str, tables: Sequence[Table]) -> None:
    """Write the tables in the format that the file's ending names. Raises UserError."""
    check_ending(file)
    try:
        write_atomically(file, FORMATS[file.suffix](title, tables).encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another --out") from None


def _in_columns(column: Column, cell: Cell) -> dict[str, float | str | None]:
    name = column.name
    if not column.difference:
        return {name: cell.value, f"{name} sd": cell.sd}
    low, high = cell.interval or (None, None)
    return {name: cell.value, f"{name} low": low, f"{name} high": high, f"{name} verdict": cell.verdict}


def _plain(table: Table) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    rows = [
        {
            "method": row.name,
            "floor": row.floor,
            "leaks": row.leaks,
            "cells": dict(zip(names, map(asdict, row.cells), strict=True)),
        }
        for row in table.rows
    ]
    return {"title": table.title, "columns": names, "rows": rows, "notes": list(table.notes)}
