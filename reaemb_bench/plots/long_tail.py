"""The long-tail curve: how well targets are ranked, by how often each was seen in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reaemb_bench.artifacts import Ranks
from reaemb_bench.evaluation.summary import Spread, over_seeds, summarise
from reaemb_bench.plots.canvas import panel
from reaemb_bench.plots.plot import Entry, Plot, floor_look, method_look
from reaemb_bench.reporting.table import Cell, Column, Row, Table, number, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
class Curve:
    """A method's or a floor's metric in each bin, with its deviation over seeds."""

    name: str
    floor: bool
    points: tuple[Spread, ...]


@dataclass(frozen=True)
class LongTail:
    """Curves over the same bins, which rise in popularity; the first bin may be that of cold targets."""

    bins: tuple[Bin, ...]
    curves: tuple[Curve, ...]

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
        Curve(name, floor, tuple(spread[f"full/ndcg@{_K}/{key}"] for key in keys)) for name, floor, spread in spreads
    ]
    return LongTail(tuple(bins), tuple(curves))


def readings(made: LongTail) -> tuple[str, ...]:
    """One sentence: the best method and the best floor where targets are rarest, and where they are most frequent."""
    warm = range(1 if made.cold and len(made.bins) > 1 else 0, len(made.bins))
    ends = dict.fromkeys((warm[0], warm[-1]))
    return (f"{METRIC}: {'; '.join(_at(made, place) for place in ends)}",)


def draw(made: LongTail) -> Plot:
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

    alt = f"{METRIC} by popularity of the target, {len(made.bins)} bins, {len(made.curves)} lines. {readings(made)[0]}"
    return Plot(
        title="Long tail",
        panels=(panel(f"{METRIC} by how often the target was seen in training", alt, on),),
        legend=tuple(Entry(curve.name, look) for curve, look in looks),
        readings=readings(made),
        notes=("bins hold about equally many users each; users whose targets are equally frequent share a bin",),
        numbers=_numbers(made),
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


def _numbers(made: LongTail) -> Table:
    rows = [
        Row(curve.name, tuple(Cell(point.mean, point.sd) for point in curve.points), curve.floor)
        for curve in made.curves
    ]
    return Table("", tuple(Column(METRIC, each.words) for each in made.bins), tuple(rows), ())
