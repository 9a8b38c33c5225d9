"""A table of results as LaTeX, for the package booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from reaemb_bench.reporting.table import LEAK, SIGNIFICANT, Cell, Column, Row, Table

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


def render(table: Table) -> str:
    """A `table` environment: caption, rules, the best numbers bold and the second best underlined, notes below.

    Parts of metrics stand in a heading line of their own, so that columns stay narrow.
    """
    lines = [r"\begin{table}[htbp]", r"\centering"]
    if table.title:
        lines.append(rf"\caption{{{escaped(table.title)}}}")
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines += [*_headings(table.columns), r"\midrule"]
    for row, after in zip(table.rows, (*table.rows[1:], None), strict=True):
        lines.append(_line([_name(row), *map(_cell, table.columns, row.cells)]))
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
    lines = [_line(["", *(escaped(column.metric) for column in columns)])]
    if any(column.part for column in columns):
        lines.append(_line(["", *(escaped(column.part) for column in columns)]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells).strip() + r" \\"


def _name(row: Row) -> str:
    name = escaped(f"{row.name} {LEAK}" if row.leaks else row.name)
    return rf"\textit{{{name}}}" if row.floor else name


def _cell(column: Column, cell: Cell) -> str:
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
