"""Text of item attributes as a reader would have it: without markup, and without the notation of data formats."""

from __future__ import annotations

import ast
import html
import json
import math
import re
from contextlib import suppress
from decimal import Decimal

_BREAKS = re.compile(r"(?i)</?(?:br|p|li|ul|ol|div|t[drh]|table|h[1-6])\b[^<>]*>")
_TAGS = re.compile(r"<[!/a-zA-Z][^<>]*>")
_NOTATION = re.compile(r"\s*(?:\[.*\]|\{.*\})\s*", re.DOTALL)


def plain_text(text: str | None) -> str:
    """Returns text on one line without HTML: entities as characters, tags that end a line as spaces."""
    if not text:
        return ""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAGS.sub("", _BREAKS.sub(" ", text))
    return " ".join(text.split())


def as_text(value: object) -> str:
    """Returns a scalar as text, empty for null and NaN; whole floats lose the ".0" that only a program gave them."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return "" if math.isnan(value) else str(value)
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    return "" if value is None else str(value).strip()


def readable(value: object) -> str | list[str]:
    """Returns any value as plain text or as a list of plain texts.

    A dictionary becomes `name: value` texts, a list the texts of its parts; both may also be written as text, in JSON
    or as Python constants, of which nothing is executed. Parts without a text are left out.
    """
    if isinstance(value, str):
        if _NOTATION.fullmatch(value):
            for parse in (json.loads, ast.literal_eval):
                with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                    content = parse(value.strip())
                    return readable(content) if isinstance(content, list | dict) else plain_text(value)
        return plain_text(value)
    if isinstance(value, dict):
        parts = ((as_text(name), one_text(part)) for name, part in value.items())
        return [f"{plain_text(name)}: {text}" for name, text in parts if text]
    if isinstance(value, list | tuple | set):
        return [text for part in value if (text := one_text(part))]
    return plain_text(as_text(value))


def one_text(value: object) -> str:
    """Returns any value as one plain text; parts of lists and dictionaries are joined with commas."""
    text = readable(value)
    return text if isinstance(text, str) else ", ".join(text)


def attribute_text(name: str, value: object) -> str | list[str]:
    """Returns an item's attribute as `readable` has it; a title is one text, and `[1408]` stays as it is."""
    if name != "title":
        return readable(value)
    return one_text(value) if isinstance(value, dict | list | tuple) else plain_text(as_text(value))
