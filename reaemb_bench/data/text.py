"""Text of item attributes as a reader would have it: without markup."""

from __future__ import annotations

import html
import re

_BREAKS = re.compile(r"(?i)</?(?:br|p|li|ul|ol|div|t[drh]|table|h[1-6])\b[^<>]*>")
_TAGS = re.compile(r"<[!/a-zA-Z][^<>]*>")


def plain_text(text: str | None) -> str:
    """Returns text on one line without HTML: entities as characters, tags that end a line as spaces."""
    if not text:
        return ""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAGS.sub("", _BREAKS.sub(" ", text))
    return " ".join(text.split())
