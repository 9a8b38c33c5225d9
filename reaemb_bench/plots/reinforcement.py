"""Diagnostics of reinforcement: does the reward rise, do groups still differ, how far do updates move the thought."""

from __future__ import annotations

from collections.abc import Sequence

from reaemb_bench.plots.plot import Plot
from reaemb_bench.plots.ticks import Curve, by_method, legend, panels, trend
from reaemb_bench.reporting.table import quantity

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


def readings(curves: Sequence[Curve], methods: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each step of each method that records a reward. methods: all runs, by name."""
    by_step: dict[tuple[str, str], dict[str, Curve]] = {}
    for curve in reinforced(curves):
        by_step.setdefault((curve.method, curve.step), {})[curve.value] = curve
    return by_method(((method, _words(step, values)) for (method, step), values in by_step.items()), methods)


def draw(curves: Sequence[Curve], methods: Sequence[str]) -> Plot | None:
    """A panel for each value that reinforcement recorded, None where there was none. methods: all runs, by name."""
    some = reinforced(curves)
    if not some:
        return None
    recorded = dict.fromkeys(curve.value for curve in some)
    explained = [_EXPLAINED[value] for value in recorded if value in _EXPLAINED]
    made = panels(some, methods, lambda curve: f"{curve.name} {trend(curve)}", best=lambda curve: False)
    return Plot("Reinforcement", made, legend(some, methods), readings(curves, methods), tuple(explained))


def _words(step: str, values: dict[str, Curve]) -> str:
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
