"""Drawing with matplotlib as SVG inside a page: its default style, no display, no date, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reaemb_bench.plots.plot import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = (440, 300)
_GREY = "#8a8f98"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "reaemb-bench",
    "font.size": 13,
    "axes.edgecolor": _GREY,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
}
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_ID = re.compile(r'(\bid="|url\(#|href="#)')
_STYLES = re.compile(r"<style[^>]*>.*?</style>", re.DOTALL)
_FONTS = re.compile(r"'DejaVu Sans'[^;\"]*sans-serif")
_ROOT = re.compile(r'<svg [^>]*viewBox="([^"]+)"[^>]*>')


def panel(heading: str, alt: str, draw: Callable[[Axes], None]) -> Panel:
    """A picture of 440 by 300 points that `draw` fills. No text from outside belongs into it: headings are HTML."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(_POINTS[0] / 72, _POINTS[1] / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=_METADATA)
    return Panel(heading, alt, _inline(file.getvalue(), heading))


def _inline(svg: str, heading: str) -> str:
    """The element alone, without fixed size, with ids that no picture below another heading has."""
    root = _ROOT.search(svg)
    assert root is not None
    mark = hashlib.sha256(f"{heading}\n{svg}".encode()).hexdigest()[:8]
    # A style inside would hold for the whole page.
    body = _ID.sub(rf"\g<1>p{mark}-", _STYLES.sub("", svg[root.end() :]))
    body = _FONTS.sub("'DejaVu Sans', Verdana, sans-serif", body)
    return f'<svg viewBox="{root.group(1)}">{body.strip()}'
