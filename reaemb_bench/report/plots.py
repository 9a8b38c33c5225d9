"""The plots of a report: learning curves, reinforcement, cost against quality, the map of vectors, the long tail.

Each plot is panels of SVG and sentences that say what they show. matplotlib draws in its default style without a
display or a date, so the same numbers give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from reaemb_bench.core.artifacts import Float64, Floors, Int64, Ranks, Vectors
from reaemb_bench.core.runs import Run
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.groups import quantile_bins
from reaemb_bench.evaluation.metrics import ndcg
from reaemb_bench.report.results import K, by_bin, method_rows, ranks_in
from reaemb_bench.report.table import Cell, Column, Row, Table, number, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRIC = f"NDCG@{K}"
SHOWN = 1_500
"""Most items that one map shows."""

_WIDTH, _HEIGHT = 440, 300
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "reaemb-bench",
    "font.size": 13,
    "axes.edgecolor": "#8a8f98",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#44a5d8", "#6b4c9a", "#333333")
_GREYS = ("#9aa0a8", "#777d86", "#5b616a", "#3f444b")
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 2), (8, 2, 2, 2))
_MARKERS = ("o", "s", "^", "D", "v")

_SVG_ROOT = re.compile(r'<svg [^>]*viewBox="([^"]+)"[^>]*>')
_SVG_ID = re.compile(r'(\bid="|url\(#|href="#)')
_SVG_STYLE = re.compile(r"<style[^>]*>.*?</style>", re.DOTALL)
_SVG_FONT = re.compile(r"'DejaVu Sans'[^;\"]*sans-serif")

_SMOOTHED_FROM = 40
"""Recorded values from which on a running mean is drawn through a curve."""
_SHARE = 10
"""A curve begins with the mean of one in this many of its values, and ends with that of as many."""
_LOG_RATIO = 20
"""Ratio of costs from which on their axis is logarithmic."""
_MAP_COLOURS = 40
"""So few that matplotlib draws the colour bar as shapes, not as an image."""
_LONG_LABEL = 14
"""Characters of a bin from which on its label is small."""
_REINFORCED = {
    "reward": "reward: mean over all rollouts of a step",
    "clean_reward": "clean_reward: of the rollouts without noise, what the thought earns as it is used later",
    "dead_groups": "dead_groups: share of groups whose rollouts all earn the same, from which nothing is learned",
    "shift": "shift: how far a step moves the thoughts, in standard deviations of the noise; far above 1, the rollouts "
    "said nothing about where the thoughts went",
    "loss": "loss: the policy's objective in a step's last update; it need not fall",
}


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
    """One picture. svg: an `<svg>` element that holds no text from outside; heading and alternative text are plain."""

    heading: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Plot:
    """Panels that share a legend. readings: sentences computed from the numbers. notes: how to read the panels."""

    title: str
    panels: tuple[Panel, ...]
    legend: tuple[Entry, ...]
    readings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    numbers: Table | None = None


def method_look(position: int) -> Look:
    """The look of the method at this position; dashes differ, so lines on top of each other both show."""
    return Look(
        _COLOURS[position % len(_COLOURS)], _DASHES[position % len(_DASHES)], _MARKERS[position % len(_MARKERS)]
    )


def floor_look(position: int) -> Look:
    """The look of the floor at this position: grey, unlike any method."""
    return Look(_GREYS[position % len(_GREYS)], ((1.5, 2), *_DASHES[1:])[position % len(_DASHES)], "")


def method_legend(methods: Sequence[str]) -> tuple[Entry, ...]:
    """The look of each method of a page, by its position."""
    return tuple(Entry(name, method_look(position)) for position, name in enumerate(methods))


def panel(heading: str, alt: str, draw: Callable[[Axes], None]) -> Panel:
    """A picture of 440 by 300 points that `draw` fills; texts from outside do not belong into it."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return svg_panel(heading, alt, file.getvalue())


def svg_panel(heading: str, alt: str, svg: str) -> Panel:
    """An SVG file of matplotlib as a part of a page."""
    root = _SVG_ROOT.search(svg)
    assert root is not None
    # Ids must differ from those of other panels, and a style would hold for the whole page.
    prefix = hashlib.sha256(f"{heading}\n{svg}".encode()).hexdigest()[:8]
    body = _SVG_ID.sub(rf"\g<1>p{prefix}-", _SVG_STYLE.sub("", svg[root.end() :]))
    body = _SVG_FONT.sub("'DejaVu Sans', Verdana, sans-serif", body)
    return Panel(heading, alt, f'<svg viewBox="{root.group(1)}">{body.strip()}')


# Curves that steps recorded while they ran.


@dataclass(frozen=True)
class Curve:
    """A value that a step of a method recorded.

    seeds: one array (records, 2) a seed: how many of `unit` were done, and the value then.
    """

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
    def validates(self) -> bool:
        """Whether the value is a validation metric, of which the best counts and not the last."""
        return self.value.startswith("validation/")

    def ends(self) -> tuple[float, float]:
        """Mean of the first and of the last tenth of the records, over seeds."""
        tenths = [(points[:, 1], max(1, len(points) // _SHARE)) for points in self.seeds]
        first = np.mean([values[:count].mean() for values, count in tenths])
        last = np.mean([values[-count:].mean() for values, count in tenths])
        return float(first), float(last)

    def trend(self) -> str:
        """`2.31 → 1.53 in 30 steps`."""
        first, last = self.ends()
        return f"{quantity(first)} → {quantity(last)} in {self.length()}"

    def length(self) -> str:
        """`30 steps`, or `18 to 22 epochs` if seeds differ."""
        lengths = [int(points[-1, 0]) for points in self.seeds]
        least, most = min(lengths), max(lengths)
        return f"{most:,} {self.unit}" if least == most else f"{least:,} to {most:,} {self.unit}"

    def mean(self) -> float:
        """Mean of all records, over seeds."""
        return float(np.mean([points[:, 1].mean() for points in self.seeds]))


def curves(runs: Mapping[str, Run], store: Store) -> tuple[Curve, ...]:
    """All curves of the runs' steps whose results are still in the store; seeds that share a result have one."""
    recorded: list[Curve] = []
    for name, run in runs.items():
        for position, result in enumerate(run.results[0]):
            keys = dict.fromkeys(seed[position].key for seed in run.results)
            recorded += curves_of(name, result.step, [store.progress(key) for key in keys if store.has(key)])
    return tuple(recorded)


def curves_of(method: str, step: str, seeds: Sequence[Sequence[Mapping[str, Any]]]) -> list[Curve]:
    """A curve for each value that a step recorded. seeds: the records of each seed, as the store keeps them."""
    names = dict.fromkeys(name for records in seeds for record in records for name in record)
    recorded = []
    for value in (name for name in names if name not in ("done", "total", "unit")):
        having = [[record for record in records if value in record] for records in seeds]
        points = [np.array([(record["done"], record[value]) for record in records]) for records in having if records]
        unit = next(records[0]["unit"] for records in having if records)
        recorded.append(Curve(method, step, value, unit, tuple(points)))
    return recorded


def running_mean(values: Float64, width: int) -> Float64:
    """Mean of the `width` values around each, of fewer at the ends: (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    first = np.maximum(positions - width // 2, 0)
    last = np.minimum(positions + (width + 1) // 2, len(values))
    means: Float64 = (sums[last] - sums[first]) / (last - first)
    return means


def _curve_panels(
    recorded: Sequence[Curve], methods: Sequence[str], words: Callable[[Curve], str]
) -> tuple[Panel, ...]:
    """A panel for each value of each step, with a line for each method and seed."""
    by_name: dict[str, list[Curve]] = {}
    for curve in recorded:
        by_name.setdefault(curve.name, []).append(curve)
    looks = {entry.name: entry.look for entry in method_legend(methods)}
    return tuple(
        panel(
            name,
            ". ".join(f"{curve.method}, {words(curve)}" for curve in group),
            partial(_draw_curves, [(curve, looks[curve.method]) for curve in group]),
        )
        for name, group in by_name.items()
    )


def _draw_curves(group: Sequence[tuple[Curve, Look]], axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for position, (curve, look) in enumerate(group):
        for seed, points in enumerate(curve.seeds):
            done, values = points.T
            smoothed = values
            if len(values) >= _SMOOTHED_FROM:
                axes.plot(done, values, color=look.colour, linewidth=0.8, alpha=0.3)
                smoothed = running_mean(values, max(3, len(values) // _SHARE))
            dashes, marker = look.dashes or (None, None), "o" if len(done) == 1 else ""
            [line] = axes.plot(done, smoothed, color=look.colour, linewidth=1.8, dashes=dashes, marker=marker)
            line.set_gid(f"series-{position}-{seed}")
            if curve.validates:
                best = values.argmax()
                axes.plot([done[best]], [values[best]], marker="o", markersize=7, color=look.colour)
    first = group[0][0]
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.set_xlabel(first.unit)
    axes.margins(x=0.02)
    if first.value == "dead_groups":
        # A share that is usually 0 throughout.
        axes.set_ylim(-0.02, 1.02)


def _curve_legend(recorded: Sequence[Curve], methods: Sequence[str]) -> tuple[Entry, ...]:
    """The methods that have a curve; none if the page shows one method alone."""
    drawn = {curve.method for curve in recorded}
    return tuple(entry for entry in method_legend(methods) if entry.name in drawn) if len(methods) > 1 else ()


def _by_method(sentences: Iterable[tuple[str, str]], methods: Sequence[str]) -> tuple[str, ...]:
    """Sentences (method, words) with the names of all methods that they hold for, unless the page shows only one."""
    by_words: dict[str, list[str]] = {}
    for method, words in sentences:
        by_words.setdefault(words, []).append(method)
    return tuple(f"{' and '.join(names)}, {words}" if len(methods) > 1 else words for words, names in by_words.items())


def _split(recorded: Sequence[Curve]) -> tuple[list[Curve], list[Curve]]:
    """The curves of steps that learn from data, and of those that record a reward."""
    rewarded = {(curve.method, curve.step) for curve in recorded if curve.value == "reward"}
    learned = [curve for curve in recorded if (curve.method, curve.step) not in rewarded]
    return learned, [curve for curve in recorded if (curve.method, curve.step) in rewarded]


# Learning curves: losses and validation metrics of all steps that learn by gradient from data.


def learning_readings(recorded: Sequence[Curve], methods: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each curve: where it begins and ends, or where validation is best. methods: all of the page."""
    return _by_method(((curve.method, _learning_words(curve)) for curve in _split(recorded)[0]), methods)


def learning_plot(recorded: Sequence[Curve], methods: Sequence[str]) -> Plot | None:
    """A panel for each value of each step, or None if no step recorded any. methods: all of the page."""
    learned, _ = _split(recorded)
    if not learned:
        return None
    return Plot(
        title="Learning curves",
        panels=_curve_panels(learned, methods, _learning_words),
        legend=_curve_legend(learned, methods),
        readings=learning_readings(recorded, methods),
        notes=(
            "a → b: means of the first and the last tenth of what was recorded; one line a seed; "
            "a dot marks the best validation; of 40 points and more, a running mean over a tenth of them is drawn",
        ),
    )


def _learning_words(curve: Curve) -> str:
    if not curve.validates:
        return f"{curve.name} {curve.trend()}"
    best = [points[points[:, 1].argmax()] for points in curve.seeds]
    epochs = sorted({int(done) for done, _ in best})
    where = " and ".join(filter(None, (", ".join(map(str, epochs[:-1])), str(epochs[-1]))))
    values = sorted(number(value) for _, value in best)
    height = values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
    return f"{curve.name} is best after {where} of {curve.length()} ({height})"


# Reinforcement: does the reward rise, do rollouts differ, how far do updates move the thoughts.


def reinforcement_readings(recorded: Sequence[Curve], methods: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each step of each method that records a reward. methods: all of the page."""
    by_step: dict[tuple[str, str], dict[str, Curve]] = {}
    for curve in _split(recorded)[1]:
        by_step.setdefault((curve.method, curve.step), {})[curve.value] = curve
    return _by_method(((method, _reward_words(values)) for (method, _), values in by_step.items()), methods)


def reinforcement_plot(recorded: Sequence[Curve], methods: Sequence[str]) -> Plot | None:
    """A panel for each value that reinforcement recorded, or None if it recorded none. methods: all of the page."""
    _, rewarded = _split(recorded)
    if not rewarded:
        return None
    values = dict.fromkeys(curve.value for curve in rewarded)
    return Plot(
        title="Reinforcement",
        panels=_curve_panels(rewarded, methods, lambda curve: f"{curve.name} {curve.trend()}"),
        legend=_curve_legend(rewarded, methods),
        readings=reinforcement_readings(recorded, methods),
        notes=tuple(_REINFORCED[value] for value in values if value in _REINFORCED),
    )


def _reward_words(values: Mapping[str, Curve]) -> str:
    reward = values["reward"]
    first, last = reward.ends()
    noise = max(float(points[:, 1].std()) for points in reward.seeds)
    verb = "rises" if last > first else "falls"
    within = "less" if abs(last - first) < noise else "more"
    words = [
        f"{reward.step}: the reward {verb}, {reward.trend()}, {within} than single steps differ "
        f"(standard deviation {quantity(noise)})"
    ]
    if "dead_groups" in values:
        words.append(f"{100 * values['dead_groups'].mean():.0f} % of the groups gave no signal")
    if "shift" in values:
        words.append(f"a step moves the thoughts by {quantity(values['shift'].mean())} of the noise's deviation")
    return "; ".join(words)


# Cost against quality.


@dataclass(frozen=True)
class Point:
    """A run: minutes of one seed's steps without data and judging, and its NDCG@10, the mean over seeds."""

    name: str
    minutes: float
    quality: float


def cost_readings(points: Sequence[Point]) -> tuple[str, ...]:
    """One sentence: the best run against the cheapest."""
    best, cheapest = max(points, key=lambda point: point.quality), min(points, key=lambda point: point.minutes)
    words = f"{best.name} is best: {METRIC} {number(best.quality)} in {quantity(best.minutes)} minutes"
    if best is cheapest:
        return (f"{words}, and no run is cheaper",)
    return (
        f"{words}; {cheapest.name} is cheapest: {number(cheapest.quality)} in {quantity(cheapest.minutes)} minutes, "
        f"{number(best.quality - cheapest.quality)} less",
    )


def cost_plot(points: Sequence[Point], best_floor: tuple[str, float] | None) -> Plot | None:
    """A point for each run and a line at the height of the best floor, or None for fewer than two runs."""
    if len(points) < 2:
        return None
    floor = floor_look(1)

    def draw(axes: Axes) -> None:
        for position, point in enumerate(points):
            look = method_look(position)
            [drawn] = axes.plot([point.minutes], [point.quality], look.marker, color=look.colour, markersize=9)
            drawn.set_gid(f"series-{position}")
        if best_floor is not None:
            axes.axhline(best_floor[1], color=floor.colour, dashes=floor.dashes, linewidth=1.5)
        minutes = [point.minutes for point in points]
        if 0 < _LOG_RATIO * min(minutes) < max(minutes):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
        else:
            axes.set_xlim(left=0)
        axes.margins(0.12)
        axes.set_xlabel("minutes")
        axes.set_ylabel(METRIC)

    readings = cost_readings(points)
    legend = [Entry(point.name, method_look(position)) for position, point in enumerate(points)]
    legend += [] if best_floor is None else [Entry(f"best floor: {best_floor[0]}", floor)]
    return Plot(
        title="Cost against quality",
        panels=(panel(f"{METRIC} by minutes", f"{len(points)} runs. {readings[0]}", draw),),
        legend=tuple(legend),
        readings=readings,
        notes=(
            "minutes: wall time of the steps of one seed, on the machine where each ran, without data and judging; "
            "steps that runs share count for each",
        ),
    )


# The map of item vectors: two principal components, coloured by popularity, and how many directions are in use.


@dataclass(frozen=True)
class Shape:
    """Item vectors in numbers.

    points: (items, 2), coordinates on the first two principal components. explained: share of the variance along each.
    effective_rank: exp of the entropy of the normalised singular values of the centred vectors (Roy and Vetterli,
    EUSIPCO 2007), which is how many directions are in use. mean_cosine: over all pairs of different items.
    """

    points: Float64
    explained: tuple[float, float]
    effective_rank: float
    mean_cosine: float
    width: int


def shape_of(vectors: Vectors) -> Shape:
    """PCA, effective rank and mean cosine of (items, width) vectors, which are read block by block."""
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
    singular = np.sqrt(variances[variances > 0])
    spread = singular / singular.sum()
    return Shape(
        points=points if points.shape[1] == 2 else np.pad(points, ((0, 0), (0, 1))),
        explained=(float(shares[0]), float(shares[1])),
        effective_rank=float(np.exp(-(spread * np.log(spread)).sum())) if len(singular) else 0.0,
        mean_cosine=float((directions @ directions - unit_squares) / max(items * (items - 1), 1)),
        width=width,
    )


def map_readings(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """A sentence for each map: how many directions its items use, and how alike two of them are."""
    return tuple(
        f"{name}: as if {quantity(shape.effective_rank)} of {shape.width} directions were used alike; "
        f"two items have a cosine of {number(shape.mean_cosine)} on average"
        for name, shape in shapes.items()
    )


def map_plot(shapes: Mapping[str, Shape], popularity: Int64, notes: Sequence[str] = ()) -> Plot:
    """A map for each named shape of the same items. popularity: (items,) training interactions."""
    items = len(popularity)
    shown = np.linspace(0, items - 1, min(SHOWN, items)).astype(np.int64)
    readings = map_readings(shapes)
    what = f"{len(shown):,} items on two principal components, coloured by popularity"
    some = f"every map shows {len(shown):,} of {items:,} items; " if len(shown) < items else ""
    columns = (
        *(Column("width", cost=True), Column("effective rank", cost=True), Column("mean cosine")),
        *(Column("variance", "first axis"), Column("variance", "second axis")),
    )
    rows = [
        Row(name, tuple(map(Cell, (shape.width, shape.effective_rank, shape.mean_cosine, *shape.explained))))
        for name, shape in shapes.items()
    ]
    return Plot(
        title="Map of the item vectors",
        panels=tuple(
            panel(name, f"{what}. {reading}", partial(_draw_map, shape, popularity, shown))
            for (name, shape), reading in zip(shapes.items(), readings, strict=True)
        ),
        legend=(),
        readings=readings,
        notes=(
            f"{some}each map has axes of its own: the two directions along which its items differ most; "
            "items close to each other need not be close in the directions that are left out",
            "effective rank: exp of the entropy of the normalised singular values (Roy and Vetterli, 2007)",
            *notes,
        ),
        numbers=Table("", columns, tuple(rows), ()),
    )


def _draw_map(shape: Shape, popularity: Int64, shown: Int64, axes: Axes) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    heat = np.log10(1.0 + popularity)
    x, y = shape.points[shown].T
    # Popular items are few and are drawn last.
    order = np.argsort(heat[shown], kind="stable")
    limits = {"vmin": heat.min(), "vmax": max(heat.max(), heat.min() + 1e-9)}
    # The brightest colours would vanish on white.
    colours = ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, _MAP_COLOURS)))
    size = float(np.clip(3_000 / len(shown), 9, 30))
    drawn = axes.scatter(x[order], y[order], c=heat[shown][order], s=size, cmap=colours, linewidths=0, **limits)
    drawn.set_gid("items")
    axes.set_xlabel(f"first component ({100 * shape.explained[0]:.3g} % of the variance)", fontsize=12)
    axes.set_ylabel(f"second ({100 * shape.explained[1]:.3g} %)", fontsize=12)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    marks = np.unique(np.rint(10 ** np.linspace(heat.min(), heat.max(), 4) - 1).astype(np.int64))
    bar = axes.figure.colorbar(drawn, ax=axes, ticks=np.log10(1.0 + marks), pad=0.02)
    bar.ax.set_yticklabels([quantity(mark) for mark in marks])
    bar.ax.minorticks_off()
    # Otherwise the background shines through between the colours.
    assert bar.solids is not None
    bar.solids.set_edgecolor("face")
    bar.set_label("training interactions", fontsize=12)


# The long tail: how well targets are ranked, by how often each was seen in training.


def long_tail_plot(named: Mapping[str, Sequence[Ranks]], floors: Floors | None) -> Plot | None:
    """NDCG@10 by quantile bins of the target's training interactions, or None if no user is judged.

    A line for each method and floor; cold targets are a first bin that stands apart. named: the ranks of each method's
    seeds, of the same targets of the same users as the floors'.
    """
    first = next(iter(ranks_in(named, floors)), None)
    if first is None or not len(first.users):
        return None
    quantiles = quantile_bins(first.popularity, first.history).items()
    cold = {"none": first.popularity == 0} if (first.popularity == 0).any() else {}
    warm = {name: part for name, part in quantiles if name.startswith("popularity-")}
    bins = {**cold, **{name: part.members for name, part in warm.items()}}
    ranges = [dict.fromkeys((quantity(part.low), quantity(part.high))) for part in warm.values()]
    labels = [*cold, *map("-".join, ranges)]
    users = [int(members.sum()) for members in bins.values()]

    def cells(seeds: Sequence[Ranks]) -> list[Cell]:
        return [Cell(spread.mean, spread.sd) for spread in by_bin(seeds, partial(ndcg, k=K), bins).values()]

    rows = method_rows(named, floors, cells)
    looks = [*map(method_look, range(len(named))), *map(floor_look, range(len(rows) - len(named)))]

    def best(position: int) -> str:
        words = []
        for floor, kind in ((False, ""), (True, "best floor ")):
            heights = {row.name: row.cells[position].value or 0.0 for row in rows if row.floor is floor}
            if heights:
                name = max(heights, key=heights.__getitem__)
                words.append(f"{kind}{name} {number(heights[name])}")
        where = f"where targets have {labels[position]} training interactions ({users[position]:,} users)"
        return f"{where}, {', '.join(words)}"

    ends = dict.fromkeys((len(cold) if warm else 0, len(bins) - 1))
    reading = f"{METRIC}: {'; '.join(map(best, ends))}"
    ticks = [f"{label}\n{count:,}" for label, count in zip(labels, users, strict=True)]
    draw = partial(_draw_long_tail, list(zip(rows, looks, strict=True)), ticks, len(cold))
    alt = f"{METRIC} by popularity of the target, {len(bins)} bins, {len(rows)} lines. {reading}"
    return Plot(
        title="Long tail",
        panels=(panel(f"{METRIC} by how often the target was seen in training", alt, draw),),
        legend=tuple(Entry(row.name, look) for row, look in zip(rows, looks, strict=True)),
        readings=(reading,),
        notes=("bins hold about equally many users each; users whose targets are equally frequent share a bin",),
        numbers=Table("", tuple(Column(METRIC, label) for label in labels), tuple(rows), ()),
    )


def _draw_long_tail(lines: Sequence[tuple[Row, Look]], ticks: Sequence[str], cold: int, axes: Axes) -> None:
    """cold: bins of cold targets, 1 or 0, which no line joins to the others."""
    for position, (row, look) in enumerate(lines):
        heights = [cell.value or 0.0 for cell in row.cells]
        style: dict[str, Any] = {
            "color": look.colour,
            "marker": look.marker or ".",
            "linewidth": 1.5 if row.floor else 2.2,
            "markersize": 5,
            "zorder": 2 if row.floor else 3,
        }
        bins = range(len(heights))
        [line] = axes.plot(bins[cold:], heights[cold:], dashes=look.dashes or (None, None), **style)
        line.set_gid(f"series-{position}")
        if cold:
            axes.plot([0], heights[:1], **style)
        if any(cell.sd is not None for cell in row.cells):
            axes.errorbar(bins, heights, [cell.sd or 0 for cell in row.cells], fmt="none", color=look.colour, capsize=3)
    axes.set_xticks(range(len(ticks)), ticks, fontsize=12 if max(map(len, ticks)) < _LONG_LABEL else 9)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.06)
    axes.set_xlabel("training interactions of the target\n(below: users)")
    axes.set_ylabel(METRIC)
