"""The pictures of a card, as PNG files 800 pixels wide."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reaemb_bench.cards.curves import Bin
from reaemb_bench.cards.figures import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (8.0, 4.5)
_DOTS_AN_INCH = 100
_INK = "#27496d"
_GREY = "#8a8f98"
_WORDS = "#555b64"
_MARKED = 20
"""Per cent of the items whose share is written into the picture."""
_CHARACTERS = 75
"""Small ones that fit below the longer side, side by side."""


def long_tail_png(curve: Sequence[float], name: str) -> bytes:
    """The curve of `reaemb_bench.cards.curves.long_tail` beside that of items that are all equally popular."""

    def draw(axes: Axes) -> None:
        shares = [100 * share for share in curve]
        axes.fill_between(range(len(shares)), shares, color=_INK, alpha=0.12, linewidth=0)
        axes.plot([0, 100], [0, 100], color=_GREY, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.text(64, 58, "all items equally often", color=_WORDS, fontsize=11)
        axes.plot(range(len(shares)), shares, color=_INK, linewidth=2.2)
        axes.plot([_MARKED], [shares[_MARKED]], "o", color=_INK, markersize=7)
        axes.set(xlim=(0, 100), ylim=(0, 102))
        axes.set_xlabel("share of items, most popular first (%)")
        axes.set_ylabel("share of training interactions (%)")

    return _png(draw, name, f"{_MARKED} % of the items hold {percent(curve[_MARKED])} of the training interactions")


def lengths_png(bins: Sequence[Bin], name: str) -> bytes:
    """A bar a bin of `reaemb_bench.cards.curves.length_bins`, with its count."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        words, users = [each.words for each in bins], [each.users for each in bins]
        drawn = axes.bar(range(len(bins)), users, color=_INK, width=0.86)
        axes.bar_label(drawn, [f"{count:,}" for count in users], padding=2, fontsize=10, color=_WORDS)
        crowded = len(words) * max(map(len, words), default=0) > _CHARACTERS
        side, angle = ("right", 40) if crowded else ("center", 0)
        axes.set_xticks(range(len(bins)), words, fontsize=10, ha=side, rotation=angle, rotation_mode="anchor")
        axes.margins(x=0.02, y=0.12)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("interactions of a user (number; the bins widen)")
        axes.set_ylabel("users (number)")

    return _png(draw, name, f"{sum(each.users for each in bins):,} users by the length of their sequences")


def _png(draw: Callable[[Axes], None], name: str, says: str) -> bytes:
    """Draw on a canvas of our own, in matplotlib's default style, without a display and without a date in the file."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 12, "axes.edgecolor": _GREY, "axes.axisbelow": True})
        figure = Figure(figsize=_INCHES, dpi=_DOTS_AN_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
        draw(axes)
        axes.set_title(f"{name}\n{says}", loc="left", fontsize=13, pad=12, linespacing=1.4, parse_math=False)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
