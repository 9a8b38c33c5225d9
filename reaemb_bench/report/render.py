"""Tables in every format: terminal, Markdown, LaTeX, SVG and HTML to read, JSON and CSV to compute with.

A page of HTML also holds plots, facts and texts; it needs no script, no other file and no network.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from html import escape as escape_html
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.constrain import Constrain
from rich.markup import escape
from rich.segment import Segments
from rich.table import Table as RichTable
from rich.text import Text

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.text import printable
from reaemb_bench.report.plots import Plot
from reaemb_bench.report.table import (
    LEAK,
    MISSING,
    SIGNIFICANT,
    UNLIKE,
    Cell,
    Column,
    Markup,
    Row,
    Table,
    headings,
    row_texts,
)

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
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
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


NARROW = 80
"""Width of a terminal that every table fits."""
_WIDEST_TEXT = 100
_GAP, _GAP_OF_GROUPS = 2, 3


def render_terminal(table: Table, *, wide: bool = False) -> OnScreen:
    """The table for a terminal: the best numbers are bold, the second best underlined.

    Groups of columns that do not fit its width continue in a block below. wide: they stand side by side all the same.
    """
    return OnScreen(table.printable(), wide)


def narrow(table: Table) -> Table:
    """The same table with the first columns, as many as fit 80 characters; a note says how many are left out."""
    kept = len(OnScreen(table.printable(), wide=False).blocks(NARROW)[0].columns)
    if not (left := len(table.columns) - kept):
        return table
    rows = tuple(replace(row, cells=row.cells[:kept]) for row in table.rows)
    note = f"{left} more column{'s' if left > 1 else ''} without --narrow"
    return replace(table, columns=table.columns[:kept], rows=rows, notes=(*table.notes, note))


@dataclass(frozen=True)
class OnScreen:
    """What rich prints of a table."""

    table: Table
    wide: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yields title, verdict, blocks of columns and notes, with blank lines between them."""
        table = self.table
        above = [Text(table.title, style="bold")] if table.title else []
        above += [Text(table.verdict)] if table.verdict else []
        for text in above:
            yield Constrain(text, _WIDEST_TEXT)
        for number, block in enumerate(self.blocks(None if self.wide else options.max_width)):
            if above or number:
                yield ""
            if any(over for over, _ in block.groups):
                yield Text(no_wrap=True, overflow="ignore").join(block.group_headings())
            yield Segments(console.render(block.rows(table), options.update(width=block.width)))
        if table.notes:
            yield ""
        for note in table.notes:
            line = RichTable.grid(padding=(0, 1, 0, 0))
            line.add_row(Text("·", style="dim"), Text(note, style="yellow" if note.startswith("warning:") else "dim"))
            yield Constrain(line, _WIDEST_TEXT)

    def blocks(self, width: int | None) -> list[_Block]:
        """Blocks of columns that fit the width, one for None; a group is divided if it fits no block."""
        labels = [cell_len(row.label) for row in self.table.rows]
        longest = max([cell_len(self.table.rows_are), *labels])
        names = longest if width is None else min(longest, max(16, width // 3))
        texts = [row_texts(self.table, row, TERMINAL) for row in self.table.rows]

        def block(columns: Sequence[int]) -> _Block:
            groups, below = headings([self.table.columns[column] for column in columns])
            cells = [[row[column] for row in texts] for column in columns]
            sizes = [
                max(
                    cell_len(line)
                    for text in (escape(heading), *column)
                    for line in Text.from_markup(text).plain.split("\n")
                )
                for heading, column in zip(below, cells, strict=True)
            ]
            gaps = [_GAP_OF_GROUPS if inside == 0 else _GAP for _, count in groups for inside in range(count)]
            at = 0
            for over, count in groups:
                room = sum(sizes[at : at + count]) + _GAP * (count - 1)
                sizes[at] += max(0, cell_len(over) - room)
                at += count
            return _Block(tuple(columns), names, groups, below, cells, gaps, sizes)

        fitting, count = [block(())], 0
        for _, members in headings(self.table.columns)[0]:
            group = range(count, count + members)
            count += members
            whole = width is None or block(group).width <= width
            for part in [group] if whole else [[column] for column in group]:
                longer = block([*fitting[-1].columns, *part])
                if width is None or longer.width <= width or not fitting[-1].columns:
                    fitting[-1] = longer
                else:
                    fitting.append(block(part))
        return fitting


@dataclass(frozen=True)
class _Block:
    """Columns side by side. names: width of the names. gaps, sizes: space before each column, and its width."""

    columns: tuple[int, ...]
    names: int
    groups: list[tuple[str, int]]
    below: list[str]
    cells: list[list[str]]
    gaps: list[int]
    sizes: list[int]

    @property
    def width(self) -> int:
        return self.names + sum(self.gaps) + sum(self.sizes)

    def group_headings(self) -> Iterator[Text]:
        """The line above the columns' own headings: each over a rule as long as its group."""
        at = 0
        yield Text(" " * self.names)
        for over, count in self.groups:
            room = sum(self.sizes[at : at + count]) + sum(self.gaps[at + 1 : at + count])
            at += count
            ruled = f" {over} ".center(room, "─") if over and cell_len(over) + 4 <= room else over.rjust(room)
            yield Text.assemble(" " * _GAP_OF_GROUPS, (ruled, "bold"))

    def rows(self, table: Table) -> RichTable:
        """The headings of the columns, and the rows."""
        grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
        grid.add_column(Text(table.rows_are, style="dim"), width=self.names, overflow="fold", vertical="top")
        # The box puts one space between columns.
        for heading, gap, size in zip(self.below, self.gaps, self.sizes, strict=True):
            title = Text(heading, style="bold", justify="right")
            grid.add_column(title, justify="right", vertical="top", no_wrap=True, width=gap - 1 + size)
        for row, texts, after in zip(table.rows, zip(*self.cells, strict=True), (*table.rows[1:], None), strict=True):
            grid.add_row(
                Text(row.label, style="dim" if row.floor else ""),
                *map(Text.from_markup, texts),
                end_section=_ends_methods(row, after),
            )
        return grid


def _ends_methods(row: Row, after: Row | None) -> bool:
    """Whether a rule divides these two rows: methods stand above it, floors below."""
    return after is not None and after.floor and not row.floor


def render_markdown(table: Table) -> str:
    """A heading, the verdict, a pipe table with the best numbers in bold, and the notes as a list."""
    lines = [f"### {markdown_text(table.title)}", ""] if table.title else []
    lines += [markdown_text(table.verdict), ""] if table.verdict else []
    rows = [
        [
            markdown_text(table.rows_are),
            *(markdown_text(f"{column.name} {column.arrow}".strip()) for column in table.columns),
        ],
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

    The verdict follows the caption. Headings of groups of columns stand above those of the columns.
    """

    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cells).strip()} \\\\"

    words = ". ".join(filter(None, (table.title, table.verdict)))
    caption = [rf"\caption{{{latex_text(words)}}}"] if words else []
    lines = [r"\begin{table}[htbp]", r"\centering", *caption]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    groups, below = headings(table.columns)
    if any(over for over, _ in groups):
        spanned = [
            rf"\multicolumn{{{count}}}{{c}}{{{latex_text(over)}}}" if over else " & ".join([""] * count)
            for over, count in groups
        ]
        lines.append(line(["", *spanned]))
        last = list(accumulate((count for _, count in groups), initial=1))
        rules = [
            rf"\cmidrule(lr){{{end - count + 1}-{end}}}"
            for (over, count), end in zip(groups, last[1:], strict=True)
            if over
        ]
        lines.append(" ".join(rules))
    lines.append(line(["", *map(latex_text, below)]))
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
    """The tables as the terminal shows them if it is wide enough."""
    shown = [render_terminal(table, wide=True) for table in tables]
    width = max([NARROW, *(one.blocks(None)[0].width for one in shown)])
    return picture(title, [part for one in shown for part in (Text(), one)][1:], width)


def picture(title: str, shown: Sequence[RenderableType], width: int) -> str:
    """What a terminal shows, as SVG, in any monospaced font; the picture fetches nothing from a network."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.terminal_theme import MONOKAI

    screen = Console(width=width, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for part in shown:
        screen.print(part)
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
        notes = list(table.notes)
        plain.append({"title": table.title, "verdict": table.verdict, "columns": names, "rows": rows, "notes": notes})
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
        "headings": headings,
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
