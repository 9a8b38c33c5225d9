"""Tables as files: Markdown and LaTeX to read, JSON and CSV to compute with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reaemb_bench.errors import UserError
from reaemb_bench.files import write_atomically
from reaemb_bench.reporting import latex, markdown
from reaemb_bench.reporting.html import as_html
from reaemb_bench.reporting.svg import as_svg
from reaemb_bench.reporting.table import Cell, Column, Table


def as_markdown(title: str, tables: Sequence[Table]) -> str:
    """A heading, then one pipe table after the other."""
    return "\n".join([f"## {title}\n", *(markdown.render(table) for table in tables)])


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
    return "\n".join([heading, *(latex.render(table) for table in tables)])


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
