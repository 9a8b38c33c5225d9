"""One number of a card: its key in `card.json` and its words for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MISSING = "—"
_DIGITS = 6
_DIGITS_OF_SHARE = 3


@dataclass(frozen=True)
class Figure:
    """A count or a mean, or with `share` a number in [0, 1] that people read in per cent; None where there is none."""

    words: str
    value: float | None
    share: bool = False

    @property
    def shown(self) -> str:
        """`22,363`, `8.88`, `0.0734 %`, or a dash."""
        if self.value is None:
            return MISSING
        if self.share:
            return percent(self.value)
        return f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:,.2f}"


Section = Mapping[str, Figure]
"""Figures by their key, in order."""


def percent(share: float) -> str:
    """Three significant digits, never in scientific notation: `80.3 %`, `0.0734 %`."""
    return f"{np.format_float_positional(100 * share, precision=_DIGITS_OF_SHARE, fractional=False, trim='-')} %"


def rounded(value: float) -> float:
    """Six significant digits, which is less than the order of a sum can change."""
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")
