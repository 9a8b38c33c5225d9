"""What a study found: its best trials, the course of the search, the importance of settings, and a page of plots."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optuna import Study
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.table import Table
from rich.text import Text

from reaemb_bench.experiments.space import MINUTES, shown
from reaemb_bench.experiments.sweep import MINUTES_TAKEN, REASON, Sweep, used
from reaemb_bench.report import render as html
from reaemb_bench.report.plots import Plot, svg_panel
from reaemb_bench.report.table import MISSING
from reaemb_bench.tracking.terminal import in_words

LEAST_FOR_IMPORTANCE = 8
"""Complete trials below which the importance of settings would be noise."""
_ROWS = 10
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_CHARACTERS = 60
_PARETO = "◆"


@dataclass(frozen=True)
class Found:
    """A study as far as it has come.

    used: finished trials, by number. complete: those with objectives, the best first; with several objectives, the
    Pareto front first, by the first objective. front: numbers of the trials in the Pareto front.
    """

    study: Study
    used: tuple[FrozenTrial, ...]
    complete: tuple[FrozenTrial, ...]
    front: frozenset[int]

    @property
    def best(self) -> FrozenTrial | None:
        """The trial that `best.toml` holds; None if none is complete."""
        return self.complete[0] if self.complete else None


def found_in(study: Study) -> Found:
    """Returns what the study holds now."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if used(trial)]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    sign = 1 if study.directions[0] == StudyDirection.MINIMIZE else -1
    several = len(study.directions) > 1
    front = frozenset(trial.number for trial in study.best_trials) if several and complete else frozenset()
    complete.sort(key=lambda trial: (several and trial.number not in front, sign * trial.values[0], trial.number))
    return Found(study, tuple(trials), tuple(complete), front)


def trials_table(trials: Found, sweep: Sweep) -> Table:
    """Returns the best trials, then those that were pruned or failed."""
    best = [*trials.complete, *(trial for trial in trials.used if trial not in trials.complete)][:_ROWS]
    names = sweep.settings.objectives
    paths = [path for path in sweep.space if any(path in trial.params for trial in trials.used)]
    rows = []
    for trial in best:
        failed = trial.state == TrialState.FAIL or not trial.values
        values = zip(names, [None] * len(names) if failed else trial.values, strict=True)
        minutes = trial.user_attrs.get(MINUTES_TAKEN)
        rows.append(
            [
                f"{trial.number}{_PARETO if trial.number in trials.front else ''}",
                trial.state.name.lower(),
                *(MISSING if value is None else shown(value, name) for name, value in values if name != MINUTES),
                *(shown_setting(trial.params.get(path)) for path in paths),
                MISSING if minutes is None else in_words(60 * float(minutes)),
            ]
        )
    columns = ("trial", "state", *(name for name in names if name != MINUTES), *paths, "takes")
    table = _table(columns, {"state", *paths}, rows)
    if len(trials.used) > len(best):
        table.title, table.title_justify = Text(f"the {len(best)} best of {len(trials.used)} trials"), "left"
    return table


def notes(trials: Found, sweep: Sweep) -> list[str]:
    """Returns the lines below the table: the number of trials, the Pareto front, what failed."""
    states = [trial.state.name.lower() for trial in trials.used]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "fail") if state in states)
    lines = [f"{len(trials.used)} trials: {counts}"]
    if trials.front:
        lines.append(
            f"{_PARETO} Pareto front: no other trial is better in all of {', '.join(sweep.settings.objectives)}"
        )
    failed = [trial for trial in trials.used if trial.state == TrialState.FAIL]
    reasons = [str(trial.user_attrs.get(REASON, "its process died too often")) for trial in failed]
    return lines + [f"failed {reasons.count(reason)} times: {reason}" for reason in dict.fromkeys(reasons)]


def importance(trials: Found) -> dict[str, dict[str, float]]:
    """Returns the importance of each setting, by objective: its share in what makes trials good.

    By PED-ANOVA (Watanabe et al., IJCAI 2023). Empty below `LEAST_FOR_IMPORTANCE` complete trials.
    """
    if len(trials.complete) < LEAST_FOR_IMPORTANCE:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: get_param_importances(
                trials.study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial, at=at: trial.values[at]
            )
            for at, name in enumerate(trials.study.metric_names or ["objective"])
        }


def importance_table(shares: dict[str, dict[str, float]]) -> Table:
    """Returns a row per setting and a column per objective, in per cent."""
    paths = dict.fromkeys(path for by_path in shares.values() for path in by_path)
    rows = [
        [path, *(f"{100 * by_path[path]:.0f} %" if path in by_path else MISSING for by_path in shares.values())]
        for path in paths
    ]
    return _table(["importance", *shares], {"importance"}, rows)


def _table(columns: Sequence[str], left: set[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(Text(name, style="bold"), justify="left" if name in left else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def best_so_far(trials: Found) -> list[float]:
    """Returns the best value of the first objective after each complete trial, in order of trial numbers."""
    better = min if trials.study.directions[0] == StudyDirection.MINIMIZE else max
    values: list[float] = []
    for trial in sorted(trials.complete, key=lambda trial: trial.number):
        values.append(better([*values[-1:], trial.values[0]]))
    return values


def curve_line(values: Sequence[float], name: str) -> str:
    """Returns `best so far ▁▁▅██ .0412 → .0503 (validation/ndcg@10)`."""
    low, high = min(values), max(values)
    count = min(len(values), _CURVE_CHARACTERS)
    picked = [values[(number + 1) * len(values) // count - 1] for number in range(count)]
    top = len(_BARS) - 1
    bars = "".join(_BARS[round(top * (value - low) / (high - low)) if high > low else 0] for value in picked)
    return f"best so far {bars} {shown(values[0], name)} → {shown(values[-1], name)} ({name})"


def shown_setting(value: object) -> str:
    """Returns the value of a setting as short text."""
    return MISSING if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def page(trials: Found, sweep: Sweep) -> str:
    """Returns one HTML file that needs no other: Optuna's plots of the study, and all complete trials."""
    from optuna.visualization import matplotlib as plots

    names = sweep.settings.objectives
    pictures = []
    for at, name in enumerate(names):

        def value(trial: FrozenTrial, at: int = at) -> float:
            return float(trial.values[at])

        options = {"target": value, "target_name": name}
        pictures.append(_plot(f"{name}, trial by trial", plots.plot_optimization_history, trials.study, options))
        pictures.append(_plot(f"{name} by setting", plots.plot_slice, trials.study, options))
        if len(trials.complete) >= LEAST_FOR_IMPORTANCE:
            options = {**options, "evaluator": PedAnovaImportanceEvaluator()}
            heading = f"Importance of settings for {name}"
            pictures.append(_plot(heading, plots.plot_param_importances, trials.study, options))
    if len(names) > 1:
        options = {"targets": lambda trial: trial.values[:2], "target_names": list(names[:2])}
        pictures.append(_plot("Pareto front", plots.plot_pareto_front, trials.study, options))
    if any(trial.intermediate_values for trial in trials.used):
        pictures.append(_plot("Validation curves", plots.plot_intermediate_values, trials.study, {}))
    rows = [
        (
            f"trial {trial.number}",
            (
                *(shown(value, name) for value, name in zip(trial.values, names, strict=True)),
                *(shown_setting(trial.params.get(path)) for path in sweep.space),
            ),
        )
        for trial in trials.complete
    ]
    facts = html.Facts("Complete trials", (*names, *sweep.space), rows)
    return html.page(f"Sweep {sweep.name}", [html.Items(notes(trials, sweep)), *pictures, facts])


def _plot(title: str, draw: Callable[..., Any], study: Study, options: dict[str, Any]) -> Plot:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    # The texts are names of settings and their values, in which a dollar sign does not begin a formula.
    style: Any = {"text.parse_math": False, "svg.fonttype": "none"}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        warnings.simplefilter("ignore")
        draw(study, **options)
        for axes in pyplot.gcf().axes:
            if axes.get_xscale() == "log":
                axes.xaxis.set_major_formatter("{x:g}")
        file = io.StringIO()
        pyplot.gcf().savefig(file, format="svg", bbox_inches="tight")
        pyplot.close("all")
    return Plot(title, (svg_panel(title, title, file.getvalue()),), (), ())
