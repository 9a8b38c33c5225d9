"""A card as Markdown, beside its pictures."""

from __future__ import annotations

import json

from reaemb_bench.cards.card import LENGTHS, LONG_TAIL, Card
from reaemb_bench.cards.figures import Section
from reaemb_bench.cards.wording import TITLES, order_matters, terms


def render(card: Card) -> str:
    """Terms first, then figures, pictures, whether order matters, and how to prepare the same data again."""
    lines = [f"# Data card: {card.name}", "", *(f"- {name}: {text}" for name, text in terms(card.about).items())]
    lines += [f"- sha256 of everything prepared: `{card.sha256}`"]
    for name, section in card.sections.items():
        lines += ["", f"## {TITLES[name]}", "", *_table(section)]
    lines += ["", "## Removed", "", *([f"- {why}: {gone}" for why, gone in card.removed.items()] or ["- nothing"])]
    lines += ["", "## Long tail", "", f"![Share of interactions against share of items]({LONG_TAIL})"]
    lines += ["", "## Lengths", "", f"![Users by the length of their sequences]({LENGTHS})"]
    how, *losses = order_matters(card.sequentiality)
    lines += ["", "## Does order matter?", "", f"{how[0].upper()}{how[1:]}.", "", *(f"- {each}" for each in losses)]
    settings = json.dumps(card.prepared, ensure_ascii=False, indent=1)
    lines += ["", "## How it was prepared", "", "```json", settings, "```"]
    return "\n".join(lines) + "\n"


def _table(section: Section) -> list[str]:
    return ["| what | value |", "| --- | ---: |", *(f"| {each.words} | {each.shown} |" for each in section.values())]
