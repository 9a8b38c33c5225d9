"""`reaemb-bench data check`: what one's own files hold, before a recipe reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from reaemb_bench.cli.options import console, say

if TYPE_CHECKING:
    from reaemb_bench.audit.files import Files
    from reaemb_bench.audit.findings import Finding
    from reaemb_bench.data.sheets import Sheet

_SUBJECTS = ("size", "order", "duplicates", "ids", "texts")

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...", help="A file of interactions and one of items, their folder, or a recipe with a `table`."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=NAME",
        help="Column of user, item, timestamp, rating, item_key or title; may be repeated.",
    ),
]


def check(paths: Paths, columns: Columns = None) -> None:
    """Check files of interactions and items: columns, order, duplicates, ids, texts, sizes; nothing is written.

    What may spoil results is marked with an exclamation mark. The settings to paste into a recipe stand at the end.
    """
    from reaemb_bench.audit.files import named_columns, open_files

    files = open_files(paths, named_columns(columns or ()))
    screen = console()
    screen.print(_columns_table(files))
    screen.print()
    findings = _findings(files)
    shown = [each for each in findings if each.count]
    screen.print(_findings_table(shown))
    warnings = sum(each.warns for each in shown)
    say(screen, f"\n{len(findings)} checks: {warnings} warn (!), {len(findings) - len(shown)} found nothing")
    say(screen, _source(files))


def _findings(files: Files) -> list[Finding]:
    """All findings, by subject in a fixed order."""
    from reaemb_bench.audit import ids, rows, texts

    made: list[Finding] = []
    frame = item_keys = None
    if files.interactions is not None:
        frame, made = rows.interactions_of(files, files.interactions)
        made += [*rows.sizes(frame), *rows.order(frame), *rows.duplicates(frame)]
        made += [*ids.suspicious(frame["user"], "users"), *ids.suspicious(frame["item"], "items")]
    if files.items is not None:
        item_keys = texts.keys_of_items(files, files.items)
        made += texts.texts(files, files.items, item_keys)
        if frame is None:
            made += ids.suspicious(item_keys, "items")
    if frame is not None and item_keys is not None:
        made += ids.meeting(frame, item_keys)
    return sorted(made, key=lambda each: _SUBJECTS.index(each.subject))


def _columns_table(files: Files) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("file", "column", "taken as", "holds", "example"):
        table.add_column(heading, no_wrap=heading != "example")
    for sheet in (files.interactions, files.items):
        for column in () if sheet is None else sheet.columns:
            assert sheet is not None
            content, example = _content(sheet, column)
            role = _role(files, sheet, column)
            table.add_row(*(escape(text) for text in (sheet.file.name, column, role, content, example)))
    return table


def _role(files: Files, sheet: Sheet, column: str) -> str:
    roles = ("user", "item", "timestamp", "rating") if sheet is files.interactions else ("item_key", "title")
    named = [role for role in roles if files.settings[role] == column]
    if not named and sheet is files.items and column in files.settings["attributes"]:
        return "attribute"
    return ", ".join(named)


def _content(sheet: Sheet, column: str) -> tuple[str, str]:
    """What kind of values a column holds, and the first of them."""
    import polars

    from reaemb_bench.audit.findings import short

    values = [row.get(column) for row in sheet.rows()] if isinstance(sheet.content, list) else sheet.content[column]
    present = [value for value in values if value is not None and value != ""]
    example = short(present[0]) if present else ""
    if not present:
        return "nothing", example
    if any(isinstance(value, list | dict | polars.Series) for value in present):
        return "lists", example
    text = polars.Series([str(value) for value in present], dtype=polars.String)
    for name, kind in (("whole numbers", polars.Int64), ("numbers", polars.Float64)):
        if not text.cast(kind, strict=False).null_count():
            return name, example
    return "text", example


def _findings_table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("about", "what", "count", "share", "such as"):
        table.add_column(heading, justify="right" if heading in ("count", "share") else "left")
    for each in findings:
        mark = "[yellow]![/]" if each.warns else ""
        share = f"{each.count / each.total:.1%}" if each.total else ""
        examples = escape("; ".join(each.examples))
        table.add_row(mark, each.subject, escape(each.what), f"{each.count:,}", share, examples)
    return table


def _source(files: Files) -> str:
    """The settings as a recipe has them, or what is missing for them."""
    import tomli_w

    from reaemb_bench.audit.files import source_table

    for missing in ("interactions", "items"):
        if getattr(files, missing) is None:
            return f"A recipe needs a file of {missing} too; name both to see its settings."
    return f"For a recipe:\n\n{tomli_w.dumps({'prepare': {'source': source_table(files)}})}"
