"""A page with the plots of a study: one HTML file that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from reaemb_bench.plots.canvas import panel
from reaemb_bench.plots.plot import Panel, Plot, method_look
from reaemb_bench.reporting import html
from reaemb_bench.tuning.report import Found, best_so_far, importance, notes, shown_setting
from reaemb_bench.tuning.settings import CURVE, shown
from reaemb_bench.tuning.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

_BEST, _TRIAL = method_look(1).colour, method_look(0).colour
_CHARACTERS = 14
"""Of a choice, below an axis."""

Draw = Callable[["Axes"], None]


def page(found: Found, sweep: Sweep) -> str:
    """The page as HTML: all complete trials, and plots of what they show."""
    names = sweep.settings.objectives
    rows = [
        (
            f"trial {trial.number}",
            (
                *(shown(value, name) for value, name in zip(trial.values, names, strict=True)),
                *(shown_setting(trial.params.get(path)) for path in sweep.space),
            ),
        )
        for trial in found.complete
    ]
    plots = [_progress(found, names), *(_by_setting(found, sweep, place) for place in range(len(names)))]
    plots += [_curves(found)] if any(trial.intermediate_values for trial in found.used) else []
    plots += [_importance(shares)] if (shares := importance(found)) else []
    body = html.items("notes", notes(found, sweep)) + "".join(map(html.plot, plots))
    return html.page(f"Sweep {sweep.name}", body + html.facts("Complete trials", (*names, *sweep.space), rows))


def _progress(found: Found, names: tuple[str, ...]) -> Plot:
    ordered = sorted(found.complete, key=lambda trial: trial.number)
    numbers = [trial.number for trial in ordered]
    if not found.several:
        [name], values = names, best_so_far(found)

        def by_number(axes: Axes) -> None:
            axes.step(numbers, values, where="post", color=_BEST)
            axes.plot(numbers, [trial.values[0] for trial in ordered], "o", color=_TRIAL)
            axes.set_xlabel("trial")

        says = f"best so far: {shown(values[0], name)} at first, {shown(values[-1], name)} at last"
        return Plot("Trial by trial", (panel(name, says, by_number),), (), (says,))

    def front(axes: Axes) -> None:
        for trial in ordered:
            colour = _BEST if trial.number in found.front else _TRIAL
            axes.plot(trial.values[0], trial.values[1], "o", color=colour)
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])

    says = f"trials that no other one beats: {', '.join(str(number) for number in sorted(found.front))}"
    return Plot("Pareto front", (panel(" and ".join(names[:2]), says, front),), (), (says,))


def _by_setting(found: Found, sweep: Sweep, place: int) -> Plot:
    name = sweep.settings.objectives[place]
    panels = tuple(_scatter(path, found.complete, place, bool(sweep.space[path].get("log"))) for path in sweep.space)
    return Plot(f"{name} by setting", panels, (), (), ("one point a complete trial",))


def _scatter(path: str, trials: tuple[FrozenTrial, ...], place: int, log: bool) -> Panel:
    tried = [(trial.params[path], trial.values[place]) for trial in trials if path in trial.params]

    def on(axes: Axes) -> None:
        if tried and all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in tried):
            axes.plot([value for value, _ in tried], [value for _, value in tried], "o", color=_TRIAL)
            if log:
                axes.set_xscale("log")
            return
        _categories(axes, tried)

    return panel(path, f"{len(tried)} trials", on)


def _categories(axes: Axes, tried: list[tuple[Any, float]]) -> None:
    choices = sorted({str(value) for value, _ in tried})
    places = [choices.index(str(value)) for value, _ in tried]
    axes.plot(places, [value for _, value in tried], "o", color=_TRIAL)
    axes.set_xticks(range(len(choices)), [_plain(choice[:_CHARACTERS]) for choice in choices])
    axes.margins(x=0.3)


def _curves(found: Found) -> Plot:
    def on(axes: Axes) -> None:
        for trial in found.used:
            steps = sorted(trial.intermediate_values)
            colour = _TRIAL if trial.state.name == "COMPLETE" else _BEST
            axes.plot(steps, [trial.intermediate_values[step] for step in steps], ".-", color=colour, linewidth=1)
        axes.set_xlabel("epoch")

    pruned = sum(trial.state.name == "PRUNED" for trial in found.used)
    says = f"{pruned} of {len(found.used)} trials were pruned; theirs are the other lines"
    return Plot("Validation curves", (panel(CURVE, says, on),), (), (says,))


def _importance(shares: Mapping[str, Mapping[str, float]]) -> Plot:
    def bars(of: Mapping[str, float]) -> Draw:
        def on(axes: Axes) -> None:
            paths = sorted(of, key=lambda path: of[path])
            axes.barh([_plain(path) for path in paths], [100 * of[path] for path in paths], color=_TRIAL)
            axes.set_xlabel("%")

        return on

    panels = tuple(panel(name, "importance of each setting", bars(of)) for name, of in shares.items())
    return Plot("Importance of settings", panels, (), (), ("PED-ANOVA; shares of what tells good trials from others",))


def _plain(text: str) -> str:
    """The text as matplotlib draws it letter by letter."""
    return text.replace("$", r"\$")
