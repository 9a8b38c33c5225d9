"""Text from outside, such as titles, names and messages, as it is shown: it never acts on what shows it."""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_BREAKS = re.compile("\r\n|[\t\n\x0b\x0c\r\x85\u2028\u2029]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with everything escaped that a terminal, a browser or a parser could obey: `\x1b`, `\u202e`.

    Those are control characters, marks that turn the direction of writing, and halves of surrogate pairs. A line break
    or a tab becomes a space; with `lines`, newlines and tabs stay.
    """

    def space(match: re.Match[str]) -> str:
        return match[0].replace("\r\n", "\n") if lines and match[0] in ("\n", "\t", "\r\n") else " "

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _UNSAFE.sub(escape, _BREAKS.sub(space, text))
