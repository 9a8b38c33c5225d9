"""Curves that steps recorded while they ran, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reaemb_bench.artifacts import Float64
from reaemb_bench.plots.canvas import panel
from reaemb_bench.plots.plot import Entry, Look, Panel, method_look
from reaemb_bench.reporting.table import quantity
from reaemb_bench.runs import Run
from reaemb_bench.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PROGRESS = ("done", "total", "unit")
_SHARES = ("dead_groups",)
"""Values between 0 and 1, of which 0 throughout is the usual case."""
_SMOOTHED_FROM = 40
"""Ticks from which on a running mean is drawn through a curve."""
_SHARE = 10
"""A curve begins with the mean of one in this many of its ticks, and ends with that of as many."""

Ticks = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curve:
    """A value that a step reported. seeds: (ticks, 2) a seed, how many of `unit` were done and the value there."""

    method: str
    step: str
    value: str
    unit: str
    seeds: tuple[Float64, ...]

    @property
    def name(self) -> str:
        """Step and value."""
        return f"{self.step}: {self.value}"

    @property
    def begins(self) -> float:
        """Mean of the first tenth of its ticks, over seeds."""
        return float(np.mean([each[: _tenth(each), 1].mean() for each in self.seeds]))

    @property
    def ends(self) -> float:
        """Mean of the last tenth of its ticks, over seeds."""
        return float(np.mean([each[-_tenth(each) :, 1].mean() for each in self.seeds]))

    @property
    def mean(self) -> float:
        """Mean of all ticks, over seeds."""
        return float(np.mean([each[:, 1].mean() for each in self.seeds]))

    @property
    def length(self) -> str:
        """`30 steps`, or `18 to 22 epochs` where seeds differ."""
        lengths = [int(each[-1, 0]) for each in self.seeds]
        least, most = min(lengths), max(lengths)
        return f"{most:,} {self.unit}" if least == most else f"{least:,} to {most:,} {self.unit}"


def curves(named: Mapping[str, Run], store: Store) -> tuple[Curve, ...]:
    """All curves of the runs' steps whose results are still in the store."""
    made: list[Curve] = []
    for name, run in named.items():
        for place, result in enumerate(run.results[0]):
            keys = [seed[place].key for seed in run.results]
            # Seeds that share a result have one curve.
            recorded = [store.ticks(key) for key in dict.fromkeys(keys) if store.has(key)]
            made += curves_of(name, result.step, recorded)
    return tuple(made)


def curves_of(method: str, step: str, seeds: Sequence[Ticks]) -> list[Curve]:
    """A curve a value that a step reported. seeds: the ticks of each, as the store keeps them."""
    values = dict.fromkeys(name for ticks in seeds for tick in ticks for name in tick if name not in _PROGRESS)
    made = []
    for value in values:
        with_value = [[tick for tick in ticks if value in tick] for ticks in seeds]
        points = tuple(np.array([(tick["done"], tick[value]) for tick in ticks]) for ticks in with_value if ticks)
        made.append(Curve(method, step, value, next(ticks[0]["unit"] for ticks in with_value if ticks), points))
    return made


def panels(
    made: Sequence[Curve], methods: Sequence[str], words: Callable[[Curve], str], *, best: Callable[[Curve], bool]
) -> tuple[Panel, ...]:
    """A panel for each value of each step, a line a method and seed.

    methods: all that the page shows, each of which keeps its look. words: a curve in one sentence. best: whether the
    highest point of a curve is marked.
    """
    looks = {entry.name: entry.look for entry in looks_of(methods)}
    by_name: dict[str, list[Curve]] = {}
    for curve in made:
        by_name.setdefault(curve.name, []).append(curve)
    return tuple(
        panel(name, ". ".join(f"{curve.method}, {words(curve)}" for curve in some), _drawing(some, looks, best))
        for name, some in by_name.items()
    )


def legend(made: Sequence[Curve], methods: Sequence[str]) -> tuple[Entry, ...]:
    """A line for each of the methods that has a curve; nothing where one method is all there is."""
    drawn = {curve.method for curve in made}
    return tuple(entry for entry in looks_of(methods) if entry.name in drawn) if len(methods) > 1 else ()


def looks_of(methods: Sequence[str]) -> tuple[Entry, ...]:
    """The look of each method, by its place."""
    return tuple(Entry(name, method_look(place)) for place, name in enumerate(methods))


def trend(curve: Curve) -> str:
    """`2.31 → 1.53 in 30 steps`."""
    return f"{quantity(curve.begins)} → {quantity(curve.ends)} in {curve.length}"


def by_method(said: Iterable[tuple[str, str]], methods: Sequence[str]) -> tuple[str, ...]:
    """Sentences (method, what is said of it) with their methods in front, those that say the same together.

    Where `methods`, all that the page shows, is one, it needs no name.
    """
    by_words: dict[str, list[str]] = {}
    for method, words in said:
        by_words.setdefault(words, []).append(method)
    return tuple(f"{' and '.join(some)}, {words}" if len(methods) > 1 else words for words, some in by_words.items())


def _tenth(points: Float64) -> int:
    return max(1, len(points) // _SHARE)


def _drawing(some: Sequence[Curve], looks: Mapping[str, Look], best: Callable[[Curve], bool]) -> Callable[[Axes], None]:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        for place, curve in enumerate(some):
            for number, points in enumerate(curve.seeds):
                _line(axes, points, looks[curve.method], f"series-{place}-{number}")
                if best(curve):
                    x, y = points[points[:, 1].argmax()]
                    axes.plot([x], [y], marker="o", markersize=7, color=looks[curve.method].colour)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_xlabel(some[0].unit)
        axes.margins(x=0.02)
        if some[0].value in _SHARES:
            axes.set_ylim(-0.02, 1.02)

    return draw


def _line(axes: Axes, points: Float64, look: Look, gid: str) -> None:
    x, y = points.T
    smoothed = len(x) >= _SMOOTHED_FROM
    if smoothed:
        axes.plot(x, y, color=look.colour, linewidth=0.8, alpha=0.3)
    marker = "o" if len(x) == 1 else ""
    [line] = axes.plot(
        x,
        running_mean(y, max(3, len(y) // _SHARE)) if smoothed else y,
        color=look.colour,
        linewidth=1.8,
        dashes=look.dashes or (None, None),
        marker=marker,
    )
    line.set_gid(gid)


def running_mean(values: Float64, width: int) -> Float64:
    """Mean of the `width` values around each, of fewer at the ends: (n,)."""
    below = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first = np.maximum(places - width // 2, 0)
    last = np.minimum(places + (width + 1) // 2, len(values))
    means: Float64 = (below[last] - below[first]) / (last - first)
    return means
