"""How verbs print, and the files that they write besides."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.text import printable

if TYPE_CHECKING:
    from reaemb_bench.report.table import Table as ResultTable

KEY_CHARACTERS = 12
"""How much of a result's key is shown."""
_WIDTH_OF_FILES = 160


class _Screen(Console):
    """A console on which no printed text can control the terminal; styles and the live view still do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments of what is printed, their texts as `printable` shows them."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, lines=True))


_busy: Console | None = None


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for whole tables if it is a file or a pipe."""
    if _busy is not None:
        return _busy
    screen = _Screen()
    return screen if screen.is_terminal else _Screen(width=_WIDTH_OF_FILES)


@contextmanager
def busy(words: str) -> Iterator[None]:
    """A block in which a terminal always shows that something moves, imports included: what runs, and for how long.

    What is printed meanwhile goes above, and other live views below.
    """
    global _busy
    screen, spinner, begun = _Screen(), Spinner("dots"), time.monotonic()
    if not screen.is_terminal or screen.is_dumb_terminal:
        yield
        return

    def sign() -> Text:
        elapsed = timedelta(seconds=int(time.monotonic() - begun))
        frame = spinner.frames[int(8 * (time.monotonic() - begun)) % len(spinner.frames)]
        return Text.assemble(f"{frame} {words}  ", (str(elapsed), "dim"), no_wrap=True, overflow="ellipsis")

    with Live(console=screen, transient=True, refresh_per_second=8, get_renderable=sign):
        _busy = screen
        try:
            yield
        finally:
            _busy = None


def say(line: str, style: str | None = None) -> None:
    """Print a line as it is, without markup and without breaking it."""
    console().print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def show(*renderables: Any) -> None:
    """Print tables and the like."""
    for renderable in renderables:
        console().print(renderable)


def show_tables(title: str, tables: Sequence[ResultTable], out: Path | None, wide: bool | None = None) -> None:
    """Print tables of results, a blank line between them, and write them to the file `--out`.

    wide: all columns side by side, or only the first ones that fit 80 characters; by default those that do not fit the
    screen follow below.
    """
    from reaemb_bench.report.render import narrow, render_terminal, write_tables

    tables = [narrow(table) for table in tables] if wide is False else tables
    for table in tables:
        show("")
        console().print(render_terminal(table, wide=bool(wide)), crop=False)
    if out is not None:
        write_tables(out, title, tables)
        say(f"\nwritten to {out}")


def write_file(file: Path, text: str, option: str) -> None:
    """Write a text, whole or not at all. Raises UserError naming the option that chooses another file."""
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another {option}") from None


def plain_table(*headings: str, right: Collection[str] = (), no_wrap: Collection[str] = ()) -> Table:
    """A table without lines, to be filled; right, no_wrap: headings of columns that are right-aligned or never wrap.

    Without headings it shows none, and its rows may have any number of cells.
    """
    table = Table(box=None, pad_edge=False, show_header=bool(headings))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading in no_wrap)
    return table


def some_of(labels: Sequence[str], count: int) -> str:
    """Labels of some of `count` cells, such as `data, method, seed 1`, those that differ in the seed put together."""
    if len(labels) == count:
        return f"all {count} cells"
    seeds: dict[str, list[str]] = {}
    for label in labels:
        name, _, seed = label.partition(", seed ")
        seeds.setdefault(name, []).append(seed)
    return "; ".join(f"{name} ({', '.join(of)})" if any(of) else name for name, of in seeds.items())


def component_name(use: str) -> str:
    """The name of a component as tables show it: of `folder/file.py:Class` without the folder."""
    file, colon, attribute = use.rpartition(":")
    return f"{file.rpartition('/')[2]}{colon}{attribute}"


def in_words(error: UserError) -> str:
    """The error as one line, after its place in the recipe if it has one."""
    position = "in the recipe, " if isinstance(error, RecipeError) and error.path else ""
    return " ".join(printable(f"{position}{error}").split())
