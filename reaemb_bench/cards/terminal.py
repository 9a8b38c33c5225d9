"""A card on the screen; it fits a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reaemb_bench.cards.blocks import bars, columns
from reaemb_bench.cards.card import Card
from reaemb_bench.cards.wording import TITLES, order_matters, terms

_WIDTH = 50
_HEIGHT = 6
_BAR = 40
_INDENT = (0, 0, 0, 2)


def render(card: Card) -> Group:
    """Terms, figures by section, the two plots, and whether order matters."""
    parts: list[RenderableType] = [Text(card.name, style="bold")]
    parts.append(_pairs({**terms(card.about), "sha256": card.sha256}))
    for name, section in card.sections.items():
        parts += [_heading(TITLES[name]), _pairs({each.words: each.shown for each in section.values()}, numbers=True)]
    if card.removed:
        parts += [_heading("Removed"), _pairs(card.removed)]
    parts += [_heading("Share of training interactions by share of items, most popular first"), _long_tail(card)]
    parts += [_heading("Users by their number of interactions"), _lengths(card)]
    how, *losses = order_matters(card.sequentiality)
    parts += [_heading("Does order matter?"), _indented(how, "dim"), *map(_indented, losses)]
    return Group(*parts)


def _heading(words: str) -> Text:
    return Text(f"\n{words}", style="bold")


def _indented(words: str, style: str = "") -> Padding:
    return Padding(Text(words, style=style), _INDENT, expand=False)


def _pairs(rows: Mapping[str, str], numbers: bool = False) -> Padding:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right" if numbers else "left", overflow="fold")
    for what, value in rows.items():
        table.add_row(Text(what), Text(value))
    return Padding(table, _INDENT, expand=False)


def _long_tail(card: Card) -> Text:
    at = [card.long_tail[round(100 * (place + 1) / _WIDTH)] for place in range(_WIDTH)]
    lines = columns(at, _HEIGHT)
    marks = ["100 %", *[""] * (_HEIGHT - 2), "0 %"]
    plot = [f"  {mark:>5} ┤{line}" for mark, line in zip(marks, lines, strict=True)]
    ends = f"{'0 %':<{_WIDTH - 5}}100 %"
    return Text("\n".join([*plot, f"  {'':>5}  {ends}"]))


def _lengths(card: Card) -> Text:
    widest = max((len(each.words) for each in card.lengths), default=0)
    drawn = bars([each.users for each in card.lengths], _BAR)
    rows = zip(card.lengths, drawn, strict=True)
    return Text("\n".join(f"  {each.words:>{widest}} {bar} {each.users:,}" for each, bar in rows))
