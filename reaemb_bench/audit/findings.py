"""What a check of data finds, and how its examples are chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars

_EXAMPLES = 3
_CHARACTERS = 40


@dataclass(frozen=True)
class Finding:
    """A count of something, out of `total` where that says more; warns: it may spoil results if left so."""

    subject: str
    what: str
    count: int
    total: int | None = None
    examples: tuple[str, ...] = ()
    warns: bool = True


def found(
    subject: str,
    what: str,
    values: polars.Series,
    total: int | None = None,
    *,
    warns: bool = True,
    beside: Iterable[str] = (),
) -> Finding:
    """A finding about each of `values`, with the first few different ones as examples, or those of `beside`."""
    shown = list(beside) or values.unique(maintain_order=True).to_list()
    return Finding(subject, what, len(values), total, tuple(map(short, shown[:_EXAMPLES])), warns)


def short(value: object) -> str:
    """A value on one line, cut where it is long."""
    text = " ".join(str(value).split()) if str(value).strip() else repr(value)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"
