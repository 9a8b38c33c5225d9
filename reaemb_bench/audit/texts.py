"""Checks of items: keys that stand twice, texts that are missing, alike, long or not clean."""

from __future__ import annotations

from collections.abc import Sequence

import polars

from reaemb_bench.audit.columns import of_the_future
from reaemb_bench.audit.files import Files
from reaemb_bench.audit.findings import Finding, found, short
from reaemb_bench.data.sheets import Sheet, as_text, keys

_CODE = r"<[a-zA-Z/][^>]*>|&[a-z]+;|&#[0-9]+;"


def keys_of_items(files: Files, sheet: Sheet) -> polars.Series:
    """The items' keys as the source reads them, null where a cell is empty."""
    values = [as_text(row.get(files.settings["item_key"])) for row in sheet.rows()]
    return keys(polars.Series("item_key", values, polars.String))


def texts(files: Files, sheet: Sheet, item_keys: polars.Series) -> list[Finding]:
    """What is wrong with the texts of items, with their keys as examples."""
    settings, rows = files.settings, sheet.rows()
    columns = [column for column in dict.fromkeys((settings["title"], *settings["attributes"])) if column]
    twice = item_keys.filter(item_keys.is_duplicated()).unique(maintain_order=True)
    made = [found("ids", "items whose key stands twice; the first counts", twice, len(rows))]
    if not columns:
        return [*made, Finding("texts", "no column looks like a text: items are called by their keys", len(rows))]
    words = [polars.Series([_words(row.get(column)) for row in rows], dtype=polars.String) for column in columns]
    for column, each in zip(columns, words, strict=True):
        without = item_keys.filter(each == "")
        warns = column == settings["title"]
        made.append(found("texts", f"items whose '{column}' is empty", without, len(rows), warns=warns))
    whole = polars.Series([" ".join(filter(None, each)) for each in zip(*words, strict=True)], dtype=polars.String)
    return [*made, *_of_whole(whole, item_keys), _future(sheet, settings["attributes"])]


def _of_whole(whole: polars.Series, item_keys: polars.Series) -> list[Finding]:
    """What is wrong with the whole texts of items, all columns together."""
    total = len(whole)
    alike = (whole != "") & whole.is_duplicated()
    longest = whole.str.len_chars().arg_max() or 0
    return [
        found("texts", "items without any text, which are called by their keys", item_keys.filter(whole == ""), total),
        found(
            "texts",
            "items whose whole text another has too: no text embedding can tell them apart",
            item_keys.filter(alike),
            total,
            beside=whole.filter(alike).unique(maintain_order=True).to_list(),
        ),
        found("texts", "items with HTML in their text", item_keys.filter(whole.str.contains(_CODE)), total),
        Finding(
            "texts",
            "characters of the longest text; prompt.value_length cuts each value",
            len(whole[longest]),
            examples=(f"{short(item_keys[longest])}: {short(whole[longest])}",),
            warns=False,
        ),
    ]


def _future(sheet: Sheet, chosen: Sequence[str]) -> Finding:
    """Columns that should stay out of prompts; a warning where a recipe shows them."""
    late = of_the_future(sheet.columns)
    return found(
        "texts",
        "columns that only the future knew, to be kept out of prompts",
        polars.Series(late, dtype=polars.String),
        len(sheet.columns),
        warns=bool(set(late) & set(chosen)),
    )


def _words(value: object) -> str:
    """A cell as one text, lists joined."""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_words, value)))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(each)}" for key, each in value.items() if each is not None)
    return as_text(value)
