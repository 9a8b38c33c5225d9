"""Plots of block characters, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

_RISING = " ▁▂▃▄▅▆▇█"
_GROWING = " ▏▎▍▌▋▊▉█"
_PARTS = 8


def columns(values: Sequence[float], height: int) -> list[str]:
    """Lines from the top down: a column a value, `height` lines high where the value is 1, none where it is 0."""
    eighths = [round(value * height * _PARTS) for value in values]
    return [
        "".join(_RISING[min(max(filled - _PARTS * line, 0), _PARTS)] for filled in eighths)
        for line in reversed(range(height))
    ]


def bars(values: Sequence[float], width: int) -> list[str]:
    """A line a value: the greatest fills `width` characters; what is more than 0 shows at least a sliver."""
    greatest = max(values, default=0)
    eighths = [round(value / greatest * width * _PARTS) if value else 0 for value in values]
    return [_bar(max(filled, 1) if value else 0) for filled, value in zip(eighths, values, strict=True)]


def _bar(eighths: int) -> str:
    whole, rest = divmod(eighths, _PARTS)
    return _RISING[-1] * whole + (_GROWING[rest] if rest else "")
