"""What every plot is, before a page shows it."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from reaemb_bench.core.artifacts import Float64, Int64, Ranks, Vectors
from reaemb_bench.core.runs import Run
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.summary import Spread, over_seeds, summarise
from reaemb_bench.report.table import Cell, Column, Row, Table, number, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Look:
    """How a line is drawn: colour as `#rrggbb`, dashes in points (none: solid), and a marker: o, s, ^, D, v."""

    colour: str
    dashes: tuple[float, ...]
    marker: str


@dataclass(frozen=True)
class Entry:
    """A line of the legend."""

    name: str
    look: Look


@dataclass(frozen=True)
class Panel:
    """One picture: heading and alternative text are plain, svg is an `<svg>` element without a name from outside."""

    heading: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Plot:
    """Panels that share a legend. readings: what they show, computed from the numbers; notes: how to read them."""

    title: str
    panels: tuple[Panel, ...]
    legend: tuple[Entry, ...]
    readings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    numbers: Table | None = None


_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#44a5d8", "#6b4c9a", "#333333")
_GREYS = ("#9aa0a8", "#777d86", "#5b616a", "#3f444b")
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 2), (8, 2, 2, 2))
_MARKERS = ("o", "s", "^", "D", "v")


def method_look(place: int) -> Look:
    """The look of the run at this place; lines that lie on each other show both colours, for their dashes differ."""
    return Look(_COLOURS[place % len(_COLOURS)], _DASHES[place % len(_DASHES)], _MARKERS[place % len(_MARKERS)])


def floor_look(place: int) -> Look:
    """The look of the floor at this place: grey, whatever the runs."""
    return Look(_GREYS[place % len(_GREYS)], ((1.5, 2), *_DASHES[1:])[place % len(_DASHES)], "")


# Drawing with matplotlib as SVG inside a page: its default style, no display, no date, the same bytes each time.


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


# Curves that steps recorded while they ran, and how they are drawn.


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
            recorded = [store.progress(key) for key in dict.fromkeys(keys) if store.has(key)]
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
            for seed_number, points in enumerate(curve.seeds):
                _line(axes, points, looks[curve.method], f"series-{place}-{seed_number}")
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


# Learning curves: losses and validation metrics of all steps that learn by gradient from data.


_VALIDATION = "validation/"


def learned(curves: Sequence[Curve]) -> list[Curve]:
    """The curves of steps other than reinforcement, whose curves are a plot of their own."""
    rewarded = {(curve.method, curve.step) for curve in reinforced(curves)}
    return [curve for curve in curves if (curve.method, curve.step) not in rewarded]


def readings(curves: Sequence[Curve], methods: Sequence[str]) -> tuple[str, ...]:
    """A sentence a curve: where it begins and ends, or where validation is best. methods: all runs, by name."""
    return by_method(((curve.method, _words(curve)) for curve in learned(curves)), methods)


def draw(curves: Sequence[Curve], methods: Sequence[str]) -> Plot | None:
    """A panel a value and step, None where no step recorded any. methods: all runs, by name."""
    some = learned(curves)
    if not some:
        return None
    return Plot(
        title="Learning curves",
        panels=panels(some, methods, _words, best=_is_validation),
        legend=legend(some, methods),
        readings=readings(curves, methods),
        notes=(
            "a → b: means of the first and the last tenth of what was recorded; one line a seed; "
            "a dot marks the best validation; of 40 points and more, a running mean over a tenth of them is drawn",
        ),
    )


def _is_validation(curve: Curve) -> bool:
    return curve.value.startswith(_VALIDATION)


def _words(curve: Curve) -> str:
    if not _is_validation(curve):
        return f"{curve.name} {trend(curve)}"
    best = [points[points[:, 1].argmax()] for points in curve.seeds]
    epochs = sorted({int(done) for done, _ in best})
    where = " and ".join(filter(None, (", ".join(map(str, epochs[:-1])), str(epochs[-1]))))
    values = sorted(number(value) for _, value in best)
    height = values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
    return f"{curve.name} is best after {where} of {curve.length} ({height})"


# Diagnostics of reinforcement: does the reward rise, do groups still differ, how far do updates move the thought.


_REWARD = "reward"
_EXPLAINED = {
    "reward": "reward: mean over all rollouts of a step",
    "clean_reward": "clean_reward: of the rollouts without noise, what the thought earns as it is used later",
    "dead_groups": "dead_groups: share of groups whose rollouts all earn the same, from which nothing is learned",
    "shift": "shift: how far a step moves the thoughts, in standard deviations of the noise; far above 1, the rollouts "
    "said nothing about where the thoughts went",
    "loss": "loss: the policy's objective in a step's last update; it need not fall",
}


def reinforced(curves: Sequence[Curve]) -> list[Curve]:
    """The curves of steps that record a reward."""
    rewarded = {(curve.method, curve.step) for curve in curves if curve.value == _REWARD}
    return [curve for curve in curves if (curve.method, curve.step) in rewarded]


def readings_of_reinforcement(curves: Sequence[Curve], methods: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each step of each method that records a reward. methods: all runs, by name."""
    by_step: dict[tuple[str, str], dict[str, Curve]] = {}
    for curve in reinforced(curves):
        by_step.setdefault((curve.method, curve.step), {})[curve.value] = curve
    return by_method(
        ((method, _words_of_reinforcement(step, values)) for (method, step), values in by_step.items()), methods
    )


def draw_of_reinforcement(curves: Sequence[Curve], methods: Sequence[str]) -> Plot | None:
    """A panel for each value that reinforcement recorded, None where there was none. methods: all runs, by name."""
    some = reinforced(curves)
    if not some:
        return None
    recorded = dict.fromkeys(curve.value for curve in some)
    explained = [_EXPLAINED[value] for value in recorded if value in _EXPLAINED]
    made = panels(some, methods, lambda curve: f"{curve.name} {trend(curve)}", best=lambda curve: False)
    return Plot(
        "Reinforcement", made, legend(some, methods), readings_of_reinforcement(curves, methods), tuple(explained)
    )


def _words_of_reinforcement(step: str, values: dict[str, Curve]) -> str:
    reward = values[_REWARD]
    noise = max(float(points[:, 1].std()) for points in reward.seeds)
    change = reward.ends - reward.begins
    verb = "rises" if change > 0 else "falls"
    within = "less" if abs(change) < noise else "more"
    said = [
        f"{step}: the reward {verb}, {trend(reward)}, {within} than single steps differ "
        f"(standard deviation {quantity(noise)})"
    ]
    if "dead_groups" in values:
        said.append(f"{values['dead_groups'].mean:.0%} of the groups gave no signal".replace("%", " %"))
    if "shift" in values:
        said.append(f"a step moves the thoughts by {quantity(values['shift'].mean)} of the noise's deviation")
    return "; ".join(said)


# Cost against quality: what a run took, and how well it ranks.


_METRIC = "NDCG@10"
_WIDE = 20
"""Ratio of costs from which on their axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """A run: minutes of one seed's steps without data and judging, and its NDCG@10, the mean over seeds."""

    name: str
    minutes: float
    quality: float


def readings_of_costs(points: Sequence[Point]) -> tuple[str, ...]:
    """One sentence: the best run against the cheapest."""
    best, cheapest = max(points, key=lambda each: each.quality), min(points, key=lambda each: each.minutes)
    said = f"{best.name} is best: {_METRIC} {number(best.quality)} in {quantity(best.minutes)} minutes"
    if best is cheapest:
        return (f"{said}, and no run is cheaper",)
    return (
        f"{said}; {cheapest.name} is cheapest: {number(cheapest.quality)} in {quantity(cheapest.minutes)} minutes, "
        f"{number(best.quality - cheapest.quality)} less",
    )


def draw_of_costs(points: Sequence[Point], best_floor: tuple[str, float] | None) -> Plot | None:
    """A point a run and a line at the height of the best floor; None for fewer than two runs."""
    if len(points) < 2:
        return None

    def on(axes: Axes) -> None:
        for place, each in enumerate(points):
            look = method_look(place)
            [drawn] = axes.plot([each.minutes], [each.quality], look.marker, color=look.colour, markersize=9)
            drawn.set_gid(f"series-{place}")
        if best_floor is not None:
            grey = floor_look(1)
            axes.axhline(best_floor[1], color=grey.colour, dashes=grey.dashes, linewidth=1.5)
        minutes = [each.minutes for each in points]
        if min(minutes) > 0 and max(minutes) > _WIDE * min(minutes):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
        else:
            axes.set_xlim(left=0)
        axes.margins(0.12)
        axes.set_xlabel("minutes")
        axes.set_ylabel(_METRIC)

    said = readings_of_costs(points)
    legend = [Entry(each.name, method_look(place)) for place, each in enumerate(points)]
    legend += [] if best_floor is None else [Entry(f"best floor: {best_floor[0]}", floor_look(1))]
    return Plot(
        title="Cost against quality",
        panels=(panel(f"{_METRIC} by minutes", f"{len(points)} runs. {said[0]}", on),),
        legend=tuple(legend),
        readings=said,
        notes=(
            "minutes: wall time of the steps of one seed, on whatever machine each ran, without data and judging; "
            "steps that runs share count for each",
        ),
    )


# The map of item vectors: two principal components, coloured by popularity, and how many directions are in use.


SHOWN = 1_500
"""Most items that one map shows."""
_COLOURS_EMBEDDINGS = 40
"""So few that matplotlib draws their bar as shapes, not as an image."""


@dataclass(frozen=True)
class Shape:
    """Item vectors in numbers.

    points: (items, 2), their coordinates on the first two principal components. explained: the share of the variance
    along each. effective_rank: exp of the entropy of the normalised singular values of the centred vectors (Roy and
    Vetterli, EUSIPCO 2007): how many directions are in use. mean_cosine: over all pairs of different items; 1 where
    all point the same way.
    """

    points: Float64
    explained: tuple[float, float]
    effective_rank: float
    mean_cosine: float
    width: int


def shape_of(vectors: Vectors) -> Shape:
    """PCA, effective rank and mean cosine of (items, width) vectors, which are read in blocks; never all at once."""
    items, width = vectors.items, vectors.width
    total, squares, directions = np.zeros(width), np.zeros((width, width)), np.zeros(width)
    unit_squares = 0.0
    for block in vectors.blocks():
        rows = block.astype(np.float64)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
        total += rows.sum(axis=0)
        squares += rows.T @ rows
        directions += unit.sum(axis=0)
        unit_squares += float((unit**2).sum())
    mean = total / items
    values, axes = np.linalg.eigh(squares - items * np.outer(mean, mean))
    variances = np.clip(values[::-1], 0.0, None)
    leading = axes[:, ::-1][:, :2]
    # The sign of an axis is arbitrary; its largest entry is made positive.
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), range(leading.shape[1])])
    points = np.concatenate([(block.astype(np.float64) - mean) @ leading for block in vectors.blocks()])
    shares = np.append(variances / (variances.sum() or 1.0), 0.0)
    return Shape(
        points=points if points.shape[1] == 2 else np.pad(points, ((0, 0), (0, 1))),
        explained=(float(shares[0]), float(shares[1])),
        effective_rank=_effective_rank(variances),
        mean_cosine=float((directions @ directions - unit_squares) / max(items * (items - 1), 1)),
        width=width,
    )


def readings_of_embeddings(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """A sentence a map: how many directions its items use, and how alike two of them are."""
    return tuple(
        f"{name}: as if {quantity(each.effective_rank)} of {each.width} directions were used alike; "
        f"two items have a cosine of {number(each.mean_cosine)} on average"
        for name, each in shapes.items()
    )


def draw_of_embeddings(shapes: Mapping[str, Shape], popularity: Int64, notes: Sequence[str] = ()) -> Plot:
    """A map for each named shape of the same items. popularity: (items,) training interactions."""
    shown = np.linspace(0, len(popularity) - 1, min(SHOWN, len(popularity))).astype(np.int64)
    some = f"every map shows {len(shown):,} of {len(popularity):,} items; " if len(shown) < len(popularity) else ""
    how = (
        f"{some}each map has axes of its own: the two directions along which its items differ most; "
        "items close to each other need not be close in the directions that are left out",
        "effective rank: exp of the entropy of the normalised singular values (Roy and Vetterli, 2007)",
    )
    return Plot(
        title="Map of the item vectors",
        panels=tuple(_panel(name, each, popularity, shown) for name, each in shapes.items()),
        legend=(),
        readings=readings_of_embeddings(shapes),
        notes=(*how, *notes),
        numbers=_numbers(shapes),
    )


def _effective_rank(variances: Float64) -> float:
    singular = np.sqrt(variances)
    if not singular.sum():
        return 0.0
    shares = singular[singular > 0] / singular.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _panel(name: str, shape: Shape, popularity: Int64, shown: Int64) -> Panel:
    heat = np.log10(1.0 + popularity)

    def on(axes: Axes) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap

        x, y = shape.points[shown].T
        # Frequent items are drawn last, for they are few.
        order = np.argsort(heat[shown], kind="stable")
        limits = {"vmin": heat.min(), "vmax": max(heat.max(), heat.min() + 1e-9)}
        # The brightest colours would vanish on white.
        colours = ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, _COLOURS_EMBEDDINGS)))
        size = float(np.clip(3_000 / len(shown), 9, 30))
        drawn = axes.scatter(x[order], y[order], c=heat[shown][order], s=size, cmap=colours, linewidths=0, **limits)
        drawn.set_gid("items")
        axes.set_xlabel(f"first component ({_percent(shape.explained[0])} of the variance)", fontsize=12)
        axes.set_ylabel(f"second ({_percent(shape.explained[1])})", fontsize=12)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        marks = np.unique(np.rint(10 ** np.linspace(heat.min(), heat.max(), 4) - 1).astype(np.int64))
        bar = axes.figure.colorbar(drawn, ax=axes, ticks=np.log10(1.0 + marks), pad=0.02)
        bar.ax.set_yticklabels([quantity(mark) for mark in marks])
        bar.ax.minorticks_off()
        # Else the background shines through between the colours.
        assert bar.solids is not None
        bar.solids.set_edgecolor("face")
        bar.set_label("training interactions", fontsize=12)

    reading = readings_of_embeddings({name: shape})[0]
    alt = f"{len(shown):,} items on two principal components, coloured by popularity. {reading}"
    return panel(name, alt, on)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _numbers(shapes: Mapping[str, Shape]) -> Table:
    columns = (
        Column("width", cost=True),
        Column("effective rank", cost=True),
        Column("mean cosine"),
        Column("variance", "first axis"),
        Column("variance", "second axis"),
    )
    rows = [
        Row(name, tuple(map(Cell, (each.width, each.effective_rank, each.mean_cosine, *each.explained))))
        for name, each in shapes.items()
    ]
    return Table("", columns, tuple(rows), ())


# The long-tail curve: how well targets are ranked, by how often each was seen in training.


_K = 10
METRIC = f"NDCG@{_K}"
_COLD = "cold"
_LONG = 14
"""Characters of a bin from which on its label is small."""


@dataclass(frozen=True)
class Bin:
    """Targets with `low` to `high` training interactions, and how many users have one."""

    low: int
    high: int
    users: int

    @property
    def words(self) -> str:
        """`none`, `7`, or `7-19`."""
        if self.high == 0:
            return "none"
        low, high = quantity(self.low), quantity(self.high)
        return low if low == high else f"{low}-{high}"


@dataclass(frozen=True)
class TailCurve:
    """A method's or a floor's metric in each bin, with its deviation over seeds."""

    name: str
    floor: bool
    points: tuple[Spread, ...]


@dataclass(frozen=True)
class LongTail:
    """Curves over the same bins, which rise in popularity; the first bin may be that of cold targets."""

    bins: tuple[Bin, ...]
    curves: tuple[TailCurve, ...]

    @property
    def cold(self) -> bool:
        """Whether the first bin is that of targets without a training interaction."""
        return self.bins[0].high == 0


def long_tail(named: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks]) -> LongTail | None:
    """Means of NDCG@10 by quantile bins of the target's training interactions; None where no user is judged.

    named: the ranks of each method's seeds, of the same targets of the same users as the floors'.
    """
    spreads = [(name, False, _spread(seeds)) for name, seeds in named.items()]
    spreads += [(name, True, _spread([ranks])) for name, ranks in floors.items()]
    if not spreads:
        return None
    first = spreads[0][2]
    keys = [key.removeprefix("low/") for key in first if key.startswith("low/popularity-")]
    bins = [Bin(*(int(first[f"{what}/{key}"].mean) for what in ("low", "high", "users"))) for key in keys]
    if first.get(f"users/{_COLD}", Spread(0, None)).mean:
        keys, bins = [_COLD, *keys], [Bin(0, 0, int(first[f"users/{_COLD}"].mean)), *bins]
    if not bins:
        return None
    curves = [
        TailCurve(name, floor, tuple(spread[f"full/ndcg@{_K}/{key}"] for key in keys))
        for name, floor, spread in spreads
    ]
    return LongTail(tuple(bins), tuple(curves))


def readings_of_long_tail(made: LongTail) -> tuple[str, ...]:
    """One sentence: the best method and the best floor where targets are rarest, and where they are most frequent."""
    warm = range(1 if made.cold and len(made.bins) > 1 else 0, len(made.bins))
    ends = dict.fromkeys((warm[0], warm[-1]))
    return (f"{METRIC}: {'; '.join(_at(made, place) for place in ends)}",)


def draw_of_long_tail(made: LongTail) -> Plot:
    """A line a method and a floor over the bins; cold targets stand apart."""
    methods = [curve for curve in made.curves if not curve.floor]
    floors = [curve for curve in made.curves if curve.floor]
    looks = [
        *((each, method_look(place)) for place, each in enumerate(methods)),
        *((each, floor_look(place)) for place, each in enumerate(floors)),
    ]

    def on(axes: Axes) -> None:
        for place, (curve, look) in enumerate(looks):
            heights = [point.mean for point in curve.points]
            style: dict[str, Any] = {
                "color": look.colour,
                "marker": look.marker or ".",
                "linewidth": 1.5 if curve.floor else 2.2,
                "markersize": 5,
                "zorder": 2 if curve.floor else 3,
            }
            start = 1 if made.cold else 0
            where = range(len(heights))
            [line] = axes.plot(where[start:], heights[start:], dashes=look.dashes or (None, None), **style)
            line.set_gid(f"series-{place}")
            if made.cold:
                axes.plot([0], heights[:1], **style)
            if any(point.sd is not None for point in curve.points):
                axes.errorbar(
                    where, heights, [point.sd or 0 for point in curve.points], fmt="none", color=look.colour, capsize=3
                )
        words = [f"{each.words}\n{each.users:,}" for each in made.bins]
        axes.set_xticks(range(len(words)), words, fontsize=12 if max(map(len, words)) < _LONG else 9)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.06)
        axes.set_xlabel("training interactions of the target\n(below: users)")
        axes.set_ylabel(METRIC)

    reading = readings_of_long_tail(made)[0]
    alt = f"{METRIC} by popularity of the target, {len(made.bins)} bins, {len(made.curves)} lines. {reading}"
    return Plot(
        title="Long tail",
        panels=(panel(f"{METRIC} by how often the target was seen in training", alt, on),),
        legend=tuple(Entry(curve.name, look) for curve, look in looks),
        readings=readings_of_long_tail(made),
        notes=("bins hold about equally many users each; users whose targets are equally frequent share a bin",),
        numbers=_numbers_of_long_tail(made),
    )


def _spread(seeds: Sequence[Ranks]) -> dict[str, Spread]:
    return over_seeds([summarise(ranks, (_K,)) for ranks in seeds])


def _at(made: LongTail, place: int) -> str:
    found = made.bins[place]
    said = []
    for floor, kind in ((False, ""), (True, "best floor ")):
        curves = [curve for curve in made.curves if curve.floor is floor]
        if curves:
            best = max(curves, key=lambda curve: curve.points[place].mean)
            said.append(f"{kind}{best.name} {number(best.points[place].mean)}")
    return f"where targets have {found.words} training interactions ({found.users:,} users), {', '.join(said)}"


def _numbers_of_long_tail(made: LongTail) -> Table:
    rows = [
        Row(curve.name, tuple(Cell(point.mean, point.sd) for point in curve.points), curve.floor)
        for curve in made.curves
    ]
    return Table("", tuple(Column(METRIC, each.words) for each in made.bins), tuple(rows), ())
