"""Tables and plots as one HTML page that needs no script, no other file and no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import TYPE_CHECKING

from reaemb_bench.core.text import printable
from reaemb_bench.report.plots import Plot
from reaemb_bench.report.table import LEAK, SIGNIFICANT, Markup, Row, Table, row_texts

if TYPE_CHECKING:
    from jinja2 import Template

HTML = Markup(
    best="<strong>{}</strong>",
    second="<u>{}</u>",
    significant=SIGNIFICANT,
    sd="<small>± {}</small>",
    interval="<small>{} to {}</small>",
    verdict="<small>{}</small>",
    text=lambda text: escape(printable(text)),
)


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
    return _template().render(title=title, blocks=named, leak=LEAK)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup as Safe

    def cells(table: Table, row: Row) -> list[Safe]:
        return [Safe(text) for text in row_texts(table, row, HTML)]  # noqa: S704 - `HTML` escapes every text

    def plain(value: object) -> object:
        return value if isinstance(value, Safe) else printable(str(value), lines=True)

    environment = Environment(
        loader=PackageLoader("reaemb_bench", "report"),
        autoescape=True,
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cells"] = cells
    return environment.get_template("page.html.j2")
