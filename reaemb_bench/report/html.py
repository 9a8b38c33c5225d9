"""Tables and plots as one HTML page that needs nothing beside itself: no script, no file, no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from reaemb_bench.report.plots import Entry, Plot
from reaemb_bench.report.table import LEAK, MISSING, SIGNIFICANT, Cell, Column, Row, Table

_DIRECTIONS = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of all text behind them, of numbers too."""
_CSS = """
:root { color-scheme: light dark; --ink: #1d2430; --dim: #5a6472; --line: #d5dae1; --back: #fff; --card: #f5f7f9;
  --warn: #9c2f00 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --dim: #a3adba; --line: #3a4350; --back: #14181e;
  --card: #1d232b; --warn: #ffa66b } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: var(--back); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25 }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; break-after: avoid }
tr { break-inside: avoid }
.scroll { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
th, td { padding: .3rem .55rem; text-align: right; vertical-align: top; white-space: nowrap }
th:first-child { text-align: left; white-space: normal }
th bdi { display: inline-block; max-width: 14rem; overflow-wrap: break-word }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom }
tbody tr + tr > * { border-top: 1px solid var(--line) }
tbody tr.first-floor > * { border-top: 2px solid var(--dim) }
tr.floor > * { color: var(--dim); font-weight: normal }
tbody th { font-weight: 600 }
td small, thead small { display: block; color: var(--dim); font-weight: normal }
u { text-underline-offset: .2em }
table.facts :is(td, th) { text-align: left }
table.facts td { white-space: normal; min-width: 12rem; overflow-wrap: anywhere }
.notes, .readings { padding-left: 1.1rem; font-size: .875rem }
.notes { color: var(--dim) }
.warning { color: var(--warn); font-weight: 600 }
.panels { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)) }
figure { margin: 0; padding: .5rem; border: 1px solid var(--line); border-radius: .4rem; background: #fff;
  color: #1d2430; break-inside: avoid }
figcaption { font-size: .9rem; font-weight: 600; padding: 0 .25rem }
figure svg * { stroke-linejoin: round; stroke-linecap: butt }
figure svg { display: block; width: 100%; height: auto; max-width: 40rem }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem .75rem; padding: 0; font-size: .875rem }
.legend li { display: flex; align-items: center; gap: .4rem; padding: .1rem .5rem; border-radius: .3rem;
  background: #fff; color: #1d2430; border: 1px solid var(--line) }
.legend svg { flex: none }
.legend bdi { min-width: 0 }
details { margin: .75rem 0 }
pre { overflow-x: auto; background: var(--card); padding: .75rem; font-size: .8rem }
footer { margin-top: 2rem; color: var(--dim); font-size: .8rem }
@media print { body { max-width: none; padding: 0; font-size: 10pt } table { font-size: 7.5pt }
  .panels { grid-template-columns: 1fr 1fr }
  .scroll, pre { overflow: visible } pre { white-space: pre-wrap } th, td { padding: .15rem .3rem } }
""".strip()


def as_html(title: str, tables: Sequence[Table]) -> str:
    """A page of tables alone."""
    return page(title, "".join(section(table) for table in tables))


def page(title: str, body: str) -> str:
    """A whole page. body: HTML as the other functions of this module make it; the title is plain text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{_CSS}\n</style>\n</head>\n"
        f"<body>\n<h1><bdi>{_text(title)}</bdi></h1>\n{body}</body>\n</html>\n"
    )


def section(table: Table, rows: str = "method") -> str:
    """A table below its title, in a box that scrolls by itself, and its notes as a list. rows: what a row is."""
    heading = f"<h2><bdi>{_text(table.title)}</bdi></h2>\n" if table.title else ""
    return f"<section>\n{heading}{_grid(table, rows)}{items('notes', table.notes)}</section>\n"


def facts(heading: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table of plain texts: names of the rows at the left, one more column a name in `columns`."""
    head = "".join(f'<th scope="col"><bdi>{_text(each)}</bdi></th>' for each in columns)
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th>'
        + "".join(f"<td><bdi>{_text(each)}</bdi></td>" for each in values)
        + "</tr>\n"
        for name, values in rows
    )
    inside = f'<table class="facts">\n<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n'
    return f"<section>\n<h2>{_text(heading)}</h2>\n{_scroll(heading, inside)}</section>\n"


def plot(drawn: Plot) -> str:
    """A plot: what it says in words, its panels, its legend, its numbers, its notes."""
    panels = "".join(
        f"<figure><figcaption><bdi>{_text(each.heading)}</bdi></figcaption>"
        f'{each.svg.replace("<svg ", f"""<svg role="img" aria-label="{_text(each.alt)}" """, 1)}</figure>\n'
        for each in drawn.panels
    )
    legend = "".join(f"<li>{_swatch(each)}<bdi>{_text(each.name)}</bdi></li>" for each in drawn.legend)
    numbers = "" if drawn.numbers is None else details("numbers", _grid(drawn.numbers))
    return (
        f"<section>\n<h2>{_text(drawn.title)}</h2>\n{items('readings', drawn.readings)}"
        f'<div class="panels">\n{panels}</div>\n'
        + (f'<ul class="legend">{legend}</ul>\n' if legend else "")
        + f"{numbers}{items('notes', drawn.notes)}</section>\n"
    )


def items(kind: str, lines: Sequence[str]) -> str:
    """A list of plain texts, or nothing where there is none. kind: `notes` or `readings`."""
    inside = "".join(f"<li><bdi>{_text(line)}</bdi></li>\n" for line in lines)
    return f'<ul class="{kind}">\n{inside}</ul>\n' if lines else ""


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph. kind: `warning`, or none."""
    return f"<p{f' class={kind!r}' if kind else ''}><bdi>{_text(text)}</bdi></p>\n"


def listing(summary: str, text: str) -> str:
    """A long text as it is, behind a line that opens it."""
    return details(summary, f"<pre>{_text(text)}</pre>\n")


def details(summary: str, body: str) -> str:
    """HTML behind a line that opens it."""
    return f"<details><summary><bdi>{_text(summary)}</bdi></summary>\n{body}</details>\n"


def _text(text: str) -> str:
    return escape(_DIRECTIONS.sub("\ufffd", text), quote=True)


def _scroll(name: str, inside: str) -> str:
    # What scrolls must be reachable by keyboard, and then needs a name.
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(name)}">\n{inside}</div>\n'


def _grid(table: Table, rows: str = "method") -> str:
    head = "".join(f'<th scope="col">{_heading(column)}</th>' for column in table.columns)
    first_floor = next((row for row in table.rows if row.floor), None)
    body = "".join(_row(row, table.columns, first=row is first_floor) for row in table.rows)
    inside = f'<table>\n<thead><tr><th scope="col">{rows}</th>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n'
    return _scroll(table.title or "numbers", inside)


def _heading(column: Column) -> str:
    part = f"<small>{_text(column.part)}</small>" if column.part else ""
    return f"{_text(column.metric)}{part}"


def _row(row: Row, columns: Sequence[Column], *, first: bool) -> str:
    kind = ' class="floor first-floor"' if row.floor and first else ' class="floor"' if row.floor else ""
    name = f"<bdi>{_text(row.name)}</bdi>{f' {LEAK}' if row.leaks else ''}"
    cells = "".join(f"<td>{_cell(column, cell)}</td>" for column, cell in zip(columns, row.cells, strict=True))
    return f'<tr{kind}><th scope="row">{name}</th>{cells}</tr>\n'


def _cell(column: Column, cell: Cell) -> str:
    if cell.value is None:
        return MISSING
    value = _text(column.shown(cell.value))
    if cell.best or cell.second:
        value = f"<strong>{value}</strong>" if cell.best else f"<u>{value}</u>"
    below = [] if cell.sd is None else [f"± {column.shown(cell.sd)}"]
    below += [] if cell.interval is None else [" to ".join(map(column.shown, cell.interval))]
    below += [cell.verdict] if cell.verdict else []
    return (
        f"{value}{SIGNIFICANT if cell.significant else ''}{''.join(f'<small>{_text(each)}</small>' for each in below)}"
    )


_SHAPES = {
    "o": "M17 6A3 3 0 1 1 11 6A3 3 0 1 1 17 6Z",
    "s": "M11 3H17V9H11Z",
    "^": "M14 2L18 9H10Z",
    "D": "M14 2L18 6L14 10L10 6Z",
    "v": "M14 10L10 3H18Z",
}


def _swatch(entry: Entry) -> str:
    look = entry.look
    dashes = f' stroke-dasharray="{" ".join(f"{each:g}" for each in look.dashes)}"' if look.dashes else ""
    line = f'<path d="M1 6H27" stroke="{look.colour}" stroke-width="2"{dashes}/>'
    marker = f'<path d="{_SHAPES[look.marker]}" fill="{look.colour}"/>' if look.marker else ""
    return f'<svg width="28" height="12" aria-hidden="true">{line}{marker}</svg>'
