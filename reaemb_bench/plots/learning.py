"""Learning curves: losses and validation metrics of all steps that learn by gradient from data."""

from __future__ import annotations

from collections.abc import Sequence

from reaemb_bench.plots.plot import Plot
from reaemb_bench.plots.reinforcement import reinforced
from reaemb_bench.plots.ticks import Curve, by_method, legend, panels, trend
from reaemb_bench.reporting.table import number

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
