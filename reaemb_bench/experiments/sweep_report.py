"""What a study found: its best trials, how the best came up, and what each setting weighs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from reaemb_bench.experiments.space import CURVE, MINUTES, shown
from reaemb_bench.experiments.sweep import MINUTES_TAKEN, REASON, Sweep, used
from reaemb_bench.report import html
from reaemb_bench.report.plots import Panel, Plot, method_look, panel
from reaemb_bench.report.table import MISSING
from reaemb_bench.tracking.terminal import in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna import Study
    from optuna.trial import FrozenTrial


LEAST_FOR_IMPORTANCE = 8
"""Complete trials below which the importance of settings would be noise."""
_ROWS = 10
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_CHARACTERS = 60
_PARETO = "◆"


@dataclass(frozen=True)
class Found:
    """A study as far as it has come.

    used: what counts as finished, by number. complete: those with objectives, the best first. best: None where no
    trial is complete; with several objectives the one of the Pareto front that is best in the first. front: numbers
    of the trials that no other one beats, with several objectives.
    """

    study: Study
    used: tuple[FrozenTrial, ...]
    complete: tuple[FrozenTrial, ...]
    front: frozenset[int]

    @property
    def best(self) -> FrozenTrial | None:
        """What `best.toml` holds."""
        return self.complete[0] if self.complete else None

    @property
    def several(self) -> bool:
        """Whether there are several objectives."""
        return len(self.study.directions) > 1


def found_in(study: Study) -> Found:
    """What the study holds now."""
    from optuna.study import StudyDirection
    from optuna.trial import TrialState

    trials = [trial for trial in study.get_trials(deepcopy=False) if used(trial)]
    sign = 1 if study.directions[0] == StudyDirection.MINIMIZE else -1
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    several = len(study.directions) > 1
    front = frozenset(trial.number for trial in study.best_trials) if several and complete else frozenset()
    complete.sort(key=lambda trial: (several and trial.number not in front, sign * trial.values[0], trial.number))
    return Found(study, tuple(trials), tuple(complete), front)


def trials_table(found: Found, sweep: Sweep) -> Table:
    """The best trials, then those that were pruned or failed."""
    rest = [trial for trial in found.used if trial not in found.complete]
    best = [*found.complete, *rest][:_ROWS]
    names = sweep.settings.objectives
    paths = [path for path in sweep.space if any(path in trial.params for trial in found.used)]
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    if len(found.used) > len(best):
        made.title, made.title_justify = Text(f"the {len(best)} best of {len(found.used)} trials"), "left"
    for name in ("trial", "state", *(name for name in names if name != MINUTES), *paths, "takes"):
        made.add_column(Text(name, style="bold"), justify="left" if name in (*paths, "state") else "right")
    for trial in best:
        mark = _PARETO if trial.number in found.front else ""
        values = _values(trial, names)
        settings = (shown_setting(trial.params.get(path)) for path in paths)
        cells = (f"{trial.number}{mark}", trial.state.name.lower(), *values, *settings, _takes(trial))
        made.add_row(*(Text(cell) for cell in cells))
    return made


def notes(found: Found, sweep: Sweep) -> list[str]:
    """Lines below the table: how many trials there are, the Pareto front, what failed."""
    names = sweep.settings.objectives
    states = [trial.state.name.lower() for trial in found.used]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "fail") if state in states)
    lines = [f"{len(found.used)} trials: {counts}"]
    if found.front:
        lines.append(f"{_PARETO} Pareto front: no other trial is better in all of {', '.join(names)}")
    failed = [trial for trial in found.used if _failed(trial)]
    reasons = [str(trial.user_attrs.get(REASON, "its process died too often")) for trial in failed]
    lines += [f"failed {reasons.count(reason)} times: {reason}" for reason in dict.fromkeys(reasons)]
    return lines


def importance(found: Found) -> dict[str, dict[str, float]]:
    """By objective, the share of each setting in what makes trials good (PED-ANOVA, Watanabe et al., IJCAI 2023).

    Empty below `LEAST_FOR_IMPORTANCE` complete trials.
    """
    if len(found.complete) < LEAST_FOR_IMPORTANCE:
        return {}
    from optuna.importance import get_param_importances

    made = {}
    for place, name in enumerate(found.study.metric_names or ["objective"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made[name] = get_param_importances(found.study, target=lambda trial, place=place: trial.values[place])
    return made


def importance_table(shares: dict[str, dict[str, float]]) -> Table:
    """A row a setting, a column an objective, in per cent."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    made.add_column(Text("importance", style="bold"))
    for name in shares:
        made.add_column(Text(name, style="bold"), justify="right")
    for path in dict.fromkeys(path for each in shares.values() for path in each):
        made.add_row(Text(path), *(Text(_percent(each.get(path))) for each in shares.values()))
    return made


def best_so_far(found: Found) -> list[float]:
    """The best first objective after each complete trial, by number."""
    better = min if found.study.directions[0].name == "MINIMIZE" else max
    values: list[float] = []
    for trial in sorted(found.complete, key=lambda trial: trial.number):
        values.append(better([*values[-1:], trial.values[0]]))
    return values


def curve_line(values: Sequence[float], name: str) -> str:
    """`best so far ▁▁▅██ .0412 → .0503 (validation/ndcg@10)`."""
    low, high = min(values), max(values)
    count = min(len(values), _CURVE_CHARACTERS)
    picked = [values[(place + 1) * len(values) // count - 1] for place in range(count)]
    top = len(_BARS) - 1
    bars = "".join(_BARS[round(top * (value - low) / (high - low)) if high > low else 0] for value in picked)
    return f"best so far {bars} {shown(values[0], name)} → {shown(values[-1], name)} ({name})"


def _values(trial: FrozenTrial, names: Sequence[str]) -> list[str]:
    values = trial.values if trial.values and not _failed(trial) else [None] * len(names)
    pairs = zip(names, values, strict=True)
    return [MISSING if value is None else shown(value, name) for name, value in pairs if name != MINUTES]


def _takes(trial: FrozenTrial) -> str:
    minutes = trial.user_attrs.get(MINUTES_TAKEN)
    return MISSING if minutes is None else in_words(60 * float(minutes))


def shown_setting(value: object) -> str:
    """A value of a setting, short."""
    return MISSING if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.0f} %"


def _failed(trial: FrozenTrial) -> bool:
    return bool(trial.state.name == "FAIL")


# A page with the plots of a study: one HTML file that needs nothing beside itself.


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
    facts = html.Facts("Complete trials", (*names, *sweep.space), rows)
    return html.page(f"Sweep {sweep.name}", [html.Items(notes(found, sweep)), *plots, facts])


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
