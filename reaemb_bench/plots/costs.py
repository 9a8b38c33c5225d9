"""Cost against quality: what a run took, and how well it ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reaemb_bench.plots.canvas import panel
from reaemb_bench.plots.plot import Entry, Plot, floor_look, method_look
from reaemb_bench.reporting.table import number, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_METRIC = "NDCG@10"
_WIDE = 20
"""Ratio of costs from which on their axis is logarithmic."""


@dataclass(frozen=True)
class Point:
    """A run: minutes of one seed's steps without data and judging, and its NDCG@10, the mean over seeds."""

    name: str
    minutes: float
    quality: float


def readings(points: Sequence[Point]) -> tuple[str, ...]:
    """One sentence: the best run against the cheapest."""
    best, cheapest = max(points, key=lambda each: each.quality), min(points, key=lambda each: each.minutes)
    said = f"{best.name} is best: {_METRIC} {number(best.quality)} in {quantity(best.minutes)} minutes"
    if best is cheapest:
        return (f"{said}, and no run is cheaper",)
    return (
        f"{said}; {cheapest.name} is cheapest: {number(cheapest.quality)} in {quantity(cheapest.minutes)} minutes, "
        f"{number(best.quality - cheapest.quality)} less",
    )


def draw(points: Sequence[Point], best_floor: tuple[str, float] | None) -> Plot | None:
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

    said = readings(points)
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
