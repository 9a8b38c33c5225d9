"""Tables in every format: terminal, Markdown, LaTeX, SVG and HTML to read, JSON and CSV to compute with.

A page of HTML also holds plots, facts and texts; it needs no script, no other file and no network.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from html import escape as escape_html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.text import printable
from reaemb_bench.report.plots import Plot
from reaemb_bench.report.table import LEAK, MISSING, SIGNIFICANT, UNLIKE, Cell, Column, Markup, Row, Table, row_texts

if TYPE_CHECKING:
    from jinja2 import Template

_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row, LaTeX would read these as its options.
    **{character: f"{{{character}}}" for character in "[]*"},
    '"': "''",
    LEAK: r"\textdagger{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "→": r"$\rightarrow$",
    "—": "---",
    "…": r"\dots{}",
    UNLIKE: r"$\neq$",
}


def latex_text(text: str) -> str:
    """The text as LaTeX prints it: special characters escaped, a space for what cannot be printed."""
    shown = printable(text)
    return "".join(_LATEX.get(character, character if character.isprintable() else " ") for character in shown)


def markdown_text(text: str) -> str:
    """The text as Markdown shows it: none of it is markup or HTML."""
    return re.sub(r"[\\`*<|\[]", r"\\\g<0>", printable(text))


def _csv_text(text: str) -> str:
    """The text so that no spreadsheet takes it for a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@")) else shown


# In the terminal, all but the number stands on lines of its own, so that columns stay narrow.
TERMINAL = Markup(
    best="[bold]{}[/]",
    second="[underline]{}[/]",
    significant=SIGNIFICANT,
    sd="\n[dim]±{}[/]",
    interval="\n[dim]({} {})[/]",
    verdict="\n{}",
    missing=f"[dim]{MISSING}[/]",
    text=escape,
)
MARKDOWN = Markup(
    best="**{}**",
    second="<u>{}</u>",
    significant=f"\\{SIGNIFICANT}",
    sd=" ± {}",
    interval=" ({} to {})",
    verdict=" {}",
    text=markdown_text,
)
LATEX = Markup(
    best=r"\textbf{{{}}}",
    second=r"\underline{{{}}}",
    significant=f"$^{{{SIGNIFICANT}}}$",
    sd=r" {{\scriptsize $\pm$ {}}}",
    interval=r" {{\scriptsize ({} to {})}}",
    verdict=" {}",
    missing="---",
    # A hyphen is too short for a minus.
    text=lambda text: f"$-${latex_text(text[1:])}" if text.startswith("-") else latex_text(text),
)

HTML = Markup(
    best="<strong>{}</strong>",
    second="<u>{}</u>",
    significant=SIGNIFICANT,
    sd="<small>± {}</small>",
    interval="<small>{} to {}</small>",
    verdict="<small>{}</small>",
    text=lambda text: escape_html(printable(text)),
)


def render_terminal(table: Table) -> RichTable:
    """A rich table that fits 80 columns; the best numbers are bold, the second best underlined."""
    table = table.printable()
    rendered = RichTable(
        title=Text(table.title, style="bold"),
        caption=Text("\n".join(table.notes), style="dim"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    rendered.add_column("", overflow="fold", vertical="top")
    for column in table.columns:
        heading = "\n".join((column.metric.replace("@", "\n@"), column.part.replace("-", "\n-"))).strip()
        rendered.add_column(Text(heading, style="bold", justify="right"), justify="right", vertical="top", no_wrap=True)
    for row, after in zip(table.rows, (*table.rows[1:], None), strict=True):
        rendered.add_row(
            Text(row.label, style="dim" if row.floor else ""),
            *map(Text.from_markup, row_texts(table, row, TERMINAL)),
            end_section=_ends_methods(row, after),
        )
    return rendered


def _ends_methods(row: Row, after: Row | None) -> bool:
    """Whether a rule divides these two rows: methods stand above it, floors below."""
    return after is not None and after.floor and not row.floor


def render_markdown(table: Table) -> str:
    """A heading, a pipe table with the best numbers in bold, and the notes as a list."""
    lines = [f"### {markdown_text(table.title)}", ""] if table.title else []
    rows = [
        [markdown_text(table.rows_are), *(markdown_text(column.name) for column in table.columns)],
        ["---", *("---:" for _ in table.columns)],
    ]
    for row in table.rows:
        name = markdown_text(row.label)
        rows.append([f"*{name}*" if row.floor else name, *row_texts(table, row, MARKDOWN)])
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    if table.notes:
        lines += ["", *(f"- {markdown_text(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def render_latex(table: Table) -> str:
    """A `table` environment for the package booktabs, the best numbers bold, the second best underlined, notes below.

    Parts of metrics stand in a second line of headings, so that columns stay narrow.
    """

    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cells).strip()} \\\\"

    caption = [rf"\caption{{{latex_text(table.title)}}}"] if table.title else []
    lines = [r"\begin{table}[htbp]", r"\centering", *caption]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines.append(line(["", *(latex_text(column.metric) for column in table.columns)]))
    if any(column.part for column in table.columns):
        lines.append(line(["", *(latex_text(column.part) for column in table.columns)]))
    lines.append(r"\midrule")
    for row, after in zip(table.rows, (*table.rows[1:], None), strict=True):
        name = latex_text(row.label)
        lines.append(line([rf"\textit{{{name}}}" if row.floor else name, *row_texts(table, row, LATEX)]))
        if _ends_methods(row, after):
            lines.append(r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if table.notes:
        notes = "\\\\\n".join(map(latex_text, table.notes))
        lines += ["", rf"\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def as_markdown(title: str, tables: Sequence[Table]) -> str:
    """A heading, then the pipe tables."""
    return "\n".join([f"## {markdown_text(title)}\n", *map(render_markdown, tables)])


def as_latex(title: str, tables: Sequence[Table]) -> str:
    """A comment with the title and the package that the document needs, then the tables."""
    heading = f"% {' '.join(printable(title).split())}; needs \\usepackage{{booktabs}}\n"
    return "\n".join([heading, *map(render_latex, tables)])


def as_svg(title: str, tables: Sequence[Table]) -> str:
    """The tables as the terminal shows them, in any monospaced font; the picture fetches nothing from a network."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.terminal_theme import MONOKAI

    screen = Console(width=80, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for table in tables:
        screen.print(render_terminal(table))
    code_format = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return screen.export_svg(title=printable(title), unique_id="tables", theme=MONOKAI, code_format=code_format)


def as_json(title: str, tables: Sequence[Table]) -> str:
    """All numbers in full: `tables` of `rows` whose `cells` are named by column, null if there is no number."""
    plain = []
    for table in (table.printable() for table in tables):
        names = [column.name for column in table.columns]
        rows = [
            {"method": row.name, "floor": row.floor, "leaks": row.leaks}
            | {"cells": dict(zip(names, map(asdict, row.cells), strict=True))}
            for row in table.rows
        ]
        plain.append({"title": table.title, "columns": names, "rows": rows, "notes": list(table.notes)})
    return json.dumps({"title": printable(title), "tables": plain}, ensure_ascii=False, indent=1) + "\n"


def as_csv(title: str, tables: Sequence[Table]) -> str:
    """One line for each row of any table, numbers in full, without notes.

    A number is followed by its deviation over seeds, a difference by the bounds of its interval and its verdict.
    """

    def fields(column: Column, cell: Cell) -> dict[str, float | str | None]:
        name = _csv_text(column.name)
        if not column.difference:
            return {name: cell.value, f"{name} sd": cell.sd}
        low, high = cell.interval or (None, None)
        return {name: cell.value, f"{name} low": low, f"{name} high": high, f"{name} verdict": _csv_text(cell.verdict)}

    columns = [column for table in tables for column in table.columns]
    headings = dict.fromkeys(heading for column in columns for heading in fields(column, Cell(None)))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["title", "table", "method", "floor", "leaks", *headings], lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            line: dict[str, object] = {"title": _csv_text(title), "table": _csv_text(table.title)}
            line |= {"method": _csv_text(row.name), "floor": row.floor, "leaks": row.leaks}
            for column, cell in zip(table.columns, row.cells, strict=True):
                line |= fields(column, cell)
            writer.writerow(line)
    return text.getvalue()


@dataclass(frozen=True)
class Paragraph:
    """Plain text. kind: `warning`, or empty."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Items:
    """A list of plain texts. kind: `notes` or `readings`."""

    lines: Sequence[str]
    kind: str = "notes"


@dataclass(frozen=True)
class Facts:
    """A table of plain texts: rows of a name and one text for each column."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Listing:
    """A long text, folded under its summary."""

    summary: str
    text: str


Block = Table | Plot | Facts | Items | Paragraph | Listing


def page(title: str, blocks: Sequence[Block]) -> str:
    """The page as HTML. All texts are plain; only the pictures of plots are taken as markup."""
    named = [(type(block).__name__.lower(), block) for block in blocks]
    return template("page.html.j2").render(title=title, blocks=named, leak=LEAK)


def fragment(tables: Sequence[Table]) -> str:
    """Tables as HTML without a page around them, for a notebook."""
    parts: Any = template("page.html.j2").make_module({"title": "", "blocks": [], "leak": LEAK})
    return "".join(str(parts.table(table)) for table in tables)


@cache
def template(name: str) -> Template:
    """A template of this folder; in HTML every text is escaped, in Markdown what goes through the filter `text`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup as Safe

    def cells(table: Table, row: Row) -> list[Safe]:
        return [Safe(text) for text in row_texts(table, row, HTML)]  # noqa: S704 - `HTML` escapes every text

    def plain(value: object) -> object:
        return value if isinstance(value, Safe) else printable(str(value), lines=True)

    is_html = ".html" in name
    environment = Environment(
        loader=PackageLoader("reaemb_bench", "report"),
        autoescape=is_html,  # noqa: S701 - Markdown is not HTML
        finalize=plain if is_html else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "cells": cells,
        "text": markdown_text,
        "quoted": lambda text: json.dumps(text, ensure_ascii=False),
        "code": lambda text: printable(text).replace("`", "'"),
    }
    return environment.get_template(name)


FORMATS: dict[str, Callable[[str, Sequence[Table]], str]] = {
    ".md": as_markdown,
    ".tex": as_latex,
    ".json": as_json,
    ".csv": as_csv,
    ".html": page,
    ".svg": as_svg,
}
"""File ending -> the function that turns a title and tables into the text of such a file."""


def check_ending(file: Path) -> None:
    """Raises UserError if no format has the file's ending."""
    if file.suffix not in FORMATS:
        raise UserError(f"--out {file}: the ending says the format; give one of {', '.join(FORMATS)}")


def write_tables(file: Path, title: str, tables: Sequence[Table]) -> None:
    """Writes the tables in the format that the file's ending names. Raises UserError."""
    check_ending(file)
    try:
        write_atomically(file, FORMATS[file.suffix](title, tables).encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another --out") from None
