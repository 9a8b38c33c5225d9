"""The plots of a report: learning curves, reinforcement, cost against quality, the map of vectors, the long tail.

Each plot is panels of SVG and sentences that say what they show. matplotlib draws in its default style without a
display or a date, so the same numbers give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
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

_GREY = "#8a8f98"
_SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "reaemb-bench",
    "font.size": 13,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#44a5d8", "#6b4c9a", "#333333")
_GREYS = ("#9aa0a8", "#777d86", "#5b616a", "#3f444b")
_DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 2), (8, 2, 2, 2))
_MARKERS = ("o", "s", "^", "D", "v")

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
    "neighbour_percentile": "neighbour_percentile: rank of the most frequent neighbour; 0 is first, .5 chance",
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
    colour, dashes = _COLOURS[position % len(_COLOURS)], _DASHES[position % len(_DASHES)]
    return Look(colour, dashes, _MARKERS[position % len(_MARKERS)])


def floor_look(position: int) -> Look:
    """The look of the floor at this position: grey, unlike any method."""
    return Look(_GREYS[position % len(_GREYS)], ((1.5, 2), *_DASHES[1:])[position % len(_DASHES)], "")


def picture(draw: Callable[[Axes], None], inches: tuple[float, float], form: str, style: dict[Any, Any]) -> bytes:
    """A picture in matplotlib's default style that `draw` fills. form: `svg` or `png`, of 100 pixels an inch."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in another script is drawn as boxes; the warning would show the name as it is.
        warnings.filterwarnings("ignore", "Glyph")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"axes.edgecolor": _GREY, "axes.axisbelow": True, **style})
        figure = Figure(figsize=inches, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e6ea", linewidth=0.8)
        draw(axes)
        file = io.BytesIO()
        dated = ("Software",) if form == "png" else ("Creator", "Date", "Format", "Type")
        figure.savefig(file, format=form, metadata=dict.fromkeys(dated))
    return file.getvalue()


def panel(heading: str, alt: str, draw: Callable[[Axes], None]) -> Panel:
    """A picture of 440 by 300 points that `draw` fills; texts from outside do not belong into it."""
    return svg_panel(heading, alt, picture(draw, (440 / 72, 300 / 72), "svg", _SVG_STYLE).decode())


def svg_panel(heading: str, alt: str, svg: str) -> Panel:
    """An SVG file of matplotlib as a part of a page."""
    root = re.search(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', svg)
    assert root is not None
    # A style would hold for the whole page, and ids must differ from those of other panels.
    body = re.sub(r"<style[^>]*>.*?</style>", "", svg[root.end() :], flags=re.DOTALL)
    prefix = hashlib.sha256(f"{heading}\n{svg}".encode()).hexdigest()[:8]
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>p{prefix}-", body)
    body = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "'DejaVu Sans', Verdana, sans-serif", body)
    return Panel(heading, alt, f'<svg viewBox="{root.group(1)}">{body.strip()}')


# Curves that steps recorded while they ran: losses and validation metrics of those that learn by gradient from data,
# and of reinforcement whether the reward rises, rollouts differ, and how far updates move the thoughts.


@dataclass(frozen=True)
class Curve:
    """A value that a step of a method recorded.

    seeds: one array (records, 2) a seed: how many of `unit` were done, and the value then. rewarded: the step records
    a reward, too.
    """

    method: str
    step: str
    value: str
    unit: str
    seeds: tuple[Float64, ...]
    rewarded: bool

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
        return float(first), float(np.mean([values[-count:].mean() for values, count in tenths]))

    def mean(self) -> float:
        """Mean of all records, over seeds."""
        return float(np.mean([points[:, 1].mean() for points in self.seeds]))

    def words(self) -> str:
        """`2.31 → 1.53 in 30 steps`, or if it validates, `is best after 18 of 20 to 22 epochs (.0123)`."""
        lengths = sorted(int(points[-1, 0]) for points in self.seeds)
        length = f"{_from_to([f'{done:,}' for done in lengths])} {self.unit}"
        if not self.validates:
            first, last = self.ends()
            return f"{quantity(first)} → {quantity(last)} in {length}"
        best = [points[points[:, 1].argmax()] for points in self.seeds]
        *epochs, last_epoch = map(str, sorted({int(done) for done, _ in best}))
        where = " and ".join(filter(None, (", ".join(epochs), last_epoch)))
        return f"is best after {where} of {length} ({_from_to(sorted(number(value) for _, value in best))})"


def _from_to(ordered: Sequence[str]) -> str:
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


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
        recorded.append(Curve(method, step, value, unit, tuple(points), "reward" in names))
    return recorded


def running_mean(values: Float64, width: int) -> Float64:
    """Mean of the `width` values around each, of fewer at the ends: (n,)."""
    window = np.ones(width)
    means: Float64 = np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
    return means


def learning_readings(recorded: Iterable[Curve], methods: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each curve: where it begins and ends, or where validation is best. methods: all of the page."""
    learned = [curve for curve in recorded if not curve.rewarded]
    return _by_method([(curve.method, f"{curve.name} {curve.words()}") for curve in learned], methods)


def reinforcement_readings(recorded: Iterable[Curve], methods: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each step of each method that records a reward. methods: all of the page."""
    by_step: dict[tuple[str, str], dict[str, Curve]] = {}
    for curve in recorded:
        if curve.rewarded:
            by_step.setdefault((curve.method, curve.step), {})[curve.value] = curve
    sentences = []
    for (method, step), values in by_step.items():
        reward = values["reward"]
        first, last = reward.ends()
        noise = max(float(points[:, 1].std()) for points in reward.seeds)
        verb, within = "rises" if last > first else "falls", "less" if abs(last - first) < noise else "more"
        words = f"{step}: the reward {verb}, {reward.words()}, {within} than single steps differ "
        words += f"(standard deviation {quantity(noise)})"
        if "dead_groups" in values:
            words += f"; {100 * values['dead_groups'].mean():.0f} % of the groups gave no signal"
        if "shift" in values:
            words += f"; a step moves the thoughts by {quantity(values['shift'].mean())} of the noise's deviation"
        sentences.append((method, words))
    return _by_method(sentences, methods)


def _by_method(sentences: Sequence[tuple[str, str]], methods: Sequence[str]) -> tuple[str, ...]:
    """Sentences (method, words) with the names of all methods that they hold for, unless the page shows only one."""
    by_words: dict[str, list[str]] = {}
    for method, words in sentences:
        by_words.setdefault(words, []).append(method)
    return tuple(f"{' and '.join(names)}, {words}" if len(methods) > 1 else words for words, names in by_words.items())


def learning_plot(recorded: Sequence[Curve], methods: Sequence[str]) -> Plot | None:
    """A panel for each value of each step, or None if no step recorded any. methods: all of the page."""
    note = (
        "a → b: means of the first and the last tenth of what was recorded; one line a seed; "
        "a dot marks the best validation; of 40 points and more, a running mean over a tenth of them is drawn"
    )
    learned = [curve for curve in recorded if not curve.rewarded]
    return _curve_plot("Learning curves", learned, methods, learning_readings(learned, methods), [note])


def reinforcement_plot(recorded: Sequence[Curve], methods: Sequence[str]) -> Plot | None:
    """A panel for each value that reinforcement recorded, or None if it recorded none. methods: all of the page."""
    rewarded = [curve for curve in recorded if curve.rewarded]
    values = dict.fromkeys(curve.value for curve in rewarded)
    notes = [_REINFORCED[value] for value in values if value in _REINFORCED]
    return _curve_plot("Reinforcement", rewarded, methods, reinforcement_readings(rewarded, methods), notes)


def _curve_plot(
    title: str, drawn: Sequence[Curve], methods: Sequence[str], readings: tuple[str, ...], notes: Sequence[str]
) -> Plot | None:
    """A panel for each value of each step, with a line for each method and seed."""
    if not drawn:
        return None
    from matplotlib.ticker import MaxNLocator

    looks = {name: method_look(position) for position, name in enumerate(methods)}
    by_name: dict[str, list[Curve]] = {}
    for curve in drawn:
        by_name.setdefault(curve.name, []).append(curve)

    def draw(group: Sequence[Curve], axes: Axes) -> None:
        for position, curve in enumerate(group):
            look = looks[curve.method]
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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_xlabel(group[0].unit)
        axes.margins(x=0.02)
        if group[0].value == "dead_groups":
            # A share that is usually 0 throughout.
            axes.set_ylim(-0.02, 1.02)

    panels = [
        panel(name, ". ".join(f"{curve.method}, {name} {curve.words()}" for curve in group), partial(draw, group))
        for name, group in by_name.items()
    ]
    shown = {curve.method for curve in drawn} if len(methods) > 1 else ()
    legend = tuple(Entry(name, looks[name]) for name in methods if name in shown)
    return Plot(title, tuple(panels), legend, readings, tuple(notes))


# Cost against quality.


@dataclass(frozen=True)
class Point:
    """A run: minutes of one seed's steps without data and judging, and its NDCG@10, the mean over seeds."""

    name: str
    minutes: float
    quality: float


def cost_plot(points: Sequence[Point], best_floor: tuple[str, float] | None) -> Plot | None:
    """A point for each run and a line at the height of the best floor, or None for fewer than two runs."""
    if len(points) < 2:
        return None
    floor, looks = floor_look(1), list(map(method_look, range(len(points))))
    minutes = [point.minutes for point in points]

    def draw(axes: Axes) -> None:
        for position, (point, look) in enumerate(zip(points, looks, strict=True)):
            [drawn] = axes.plot([point.minutes], [point.quality], look.marker, color=look.colour, markersize=9)
            drawn.set_gid(f"series-{position}")
        if best_floor is not None:
            axes.axhline(best_floor[1], color=floor.colour, dashes=floor.dashes, linewidth=1.5)
        if 0 < _LOG_RATIO * min(minutes) < max(minutes):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
        else:
            axes.set_xlim(left=0)
        axes.margins(0.12)
        axes.set(xlabel="minutes", ylabel=METRIC)

    best, cheapest = max(points, key=lambda point: point.quality), min(points, key=lambda point: point.minutes)
    reading = f"{best.name} is best: {METRIC} {number(best.quality)} in {quantity(best.minutes)} minutes"
    reading += (
        ", and no run is cheaper"
        if best is cheapest
        else f"; {cheapest.name} is cheapest: {number(cheapest.quality)} in {quantity(cheapest.minutes)} minutes, "
        f"{number(best.quality - cheapest.quality)} less"
    )
    legend = [Entry(point.name, look) for point, look in zip(points, looks, strict=True)]
    legend += [] if best_floor is None else [Entry(f"best floor: {best_floor[0]}", floor)]
    note = (
        "minutes: wall time of the steps of one seed, on the machine where each ran, without data and judging; "
        "steps that runs share count for each"
    )
    drawn = panel(f"{METRIC} by minutes", f"{len(points)} runs. {reading}", draw)
    return Plot("Cost against quality", (drawn,), tuple(legend), (reading,), (note,))


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


def map_plot(shapes: Mapping[str, Shape], popularity: Int64, notes: Sequence[str] = ()) -> Plot:
    """A map for each named shape of the same items. popularity: (items,) training interactions."""
    items = len(popularity)
    shown = np.linspace(0, items - 1, min(SHOWN, items)).astype(np.int64)
    what = f"{len(shown):,} items on two principal components, coloured by popularity"
    some = f"every map shows {len(shown):,} of {items:,} items; " if len(shown) < items else ""
    panels, readings, rows = [], [], []
    for name, shape in shapes.items():
        readings.append(
            f"{name}: as if {quantity(shape.effective_rank)} of {shape.width} directions were used alike; "
            f"two items have a cosine of {number(shape.mean_cosine)} on average"
        )
        panels.append(panel(name, f"{what}. {readings[-1]}", partial(_draw_map, shape, popularity, shown)))
        cells = map(Cell, (shape.width, shape.effective_rank, shape.mean_cosine, *shape.explained))
        rows.append(Row(name, tuple(cells)))
    columns = (
        *(Column("width", cost=True), Column("effective rank", cost=True), Column("mean cosine")),
        *(Column("variance", "first axis"), Column("variance", "second axis")),
    )
    explained = (
        f"{some}each map has axes of its own: the two directions along which its items differ most; "
        "items close to each other need not be close in the directions that are left out",
        "effective rank: exp of the entropy of the normalised singular values (Roy and Vetterli, 2007)",
    )
    numbers = Table("", columns, tuple(rows), ())
    return Plot("Map of the item vectors", tuple(panels), (), tuple(readings), (*explained, *notes), numbers)


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
    axes.set(xticks=[], yticks=[])
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
    warm = {name: part for name, part in quantiles if name.startswith("popularity-")}
    cold = {"none": first.popularity == 0} if (first.popularity == 0).any() else {}
    bins = {**cold, **{name: part.members for name, part in warm.items()}}
    ranges = [dict.fromkeys((quantity(part.low), quantity(part.high))) for part in warm.values()]
    labels = [*cold, *map("-".join, ranges)]
    users = [int(members.sum()) for members in bins.values()]

    def cells(seeds: Sequence[Ranks]) -> list[Cell]:
        return [Cell(spread.mean, spread.sd) for spread in by_bin(seeds, partial(ndcg, k=K), bins).values()]

    rows = method_rows(named, floors, cells)
    looks = [*map(method_look, range(len(named))), *map(floor_look, range(len(rows) - len(named)))]
    legend = tuple(Entry(row.name, look) for row, look in zip(rows, looks, strict=True))
    ends = []
    for position in dict.fromkeys((len(cold) if warm else 0, len(bins) - 1)):
        words = [f"where targets have {labels[position]} training interactions ({users[position]:,} users)"]
        for floor, kind in ((False, ""), (True, "best floor ")):
            heights = {row.name: row.cells[position].value or 0.0 for row in rows if row.floor is floor}
            if heights:
                best = max(heights, key=heights.__getitem__)
                words.append(f"{kind}{best} {number(heights[best])}")
        ends.append(", ".join(words))
    reading = f"{METRIC}: {'; '.join(ends)}"

    def draw(axes: Axes) -> None:
        for position, (row, look) in enumerate(zip(rows, looks, strict=True)):
            heights = [cell.value or 0.0 for cell in row.cells]
            width, order = (1.5, 2) if row.floor else (2.2, 3)
            plot = partial(
                axes.plot, color=look.colour, marker=look.marker or ".", linewidth=width, markersize=5, zorder=order
            )
            # No line joins the bin of cold targets to the others.
            start = len(cold)
            [line] = plot(range(start, len(heights)), heights[start:], dashes=look.dashes or (None, None))
            line.set_gid(f"series-{position}")
            if cold:
                plot([0], heights[:1])
            if any(cell.sd is not None for cell in row.cells):
                sds = [cell.sd or 0 for cell in row.cells]
                axes.errorbar(range(len(heights)), heights, sds, fmt="none", color=look.colour, capsize=3)
        ticks = [f"{label}\n{count:,}" for label, count in zip(labels, users, strict=True)]
        axes.set_xticks(range(len(ticks)), ticks, fontsize=12 if max(map(len, ticks)) < _LONG_LABEL else 9)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.06)
        axes.set(xlabel="training interactions of the target\n(below: users)", ylabel=METRIC)

    alt = f"{METRIC} by popularity of the target, {len(bins)} bins, {len(rows)} lines. {reading}"
    drawn = panel(f"{METRIC} by how often the target was seen in training", alt, draw)
    note = "bins hold about equally many users each; users whose targets are equally frequent share a bin"
    numbers = Table("", tuple(Column(METRIC, label) for label in labels), tuple(rows), ())
    return Plot("Long tail", (drawn,), legend, (reading,), (note,), numbers)
