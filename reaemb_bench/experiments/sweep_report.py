"""What a study found: its best trials, the course of the search, the importance of settings, and a page of plots."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from optuna import Study
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.table import Table
from rich.text import Text

from reaemb_bench.experiments.space import MINUTES, shown
from reaemb_bench.experiments.sweep import MINUTES_TAKEN, REASON, Sweep, open_study, used
from reaemb_bench.report.plots import Plot, svg_panel
from reaemb_bench.report.render import Facts, Items
from reaemb_bench.report.render import page as html_page
from reaemb_bench.report.table import MISSING
from reaemb_bench.tracking.terminal import in_words

_LEAST_FOR_IMPORTANCE = 8
"""Complete trials below which the importance of settings would be noise."""
_ROWS = 10
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_CHARACTERS = 60
_PARETO = "◆"


@dataclass(frozen=True)
class Results:
    """A sweep's study as far as it has come.

    used: finished trials, by number. complete: those with objectives, the best first; with several objectives, the
    Pareto front first, by the first objective. front: numbers of the trials in the Pareto front.
    """

    sweep: Sweep
    study: Study
    used: tuple[FrozenTrial, ...]
    complete: tuple[FrozenTrial, ...]
    front: frozenset[int]

    @property
    def best(self) -> FrozenTrial | None:
        """The trial that `best.toml` holds; None if none is complete."""
        return self.complete[0] if self.complete else None


def results_of(sweep: Sweep) -> Results:
    """Returns what the study of a sweep holds now."""
    study, directions = open_study(sweep), sweep.settings.directions
    trials = [trial for trial in study.get_trials(deepcopy=False) if used(trial)]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    sign, several = 1 if directions[0] == "minimize" else -1, len(directions) > 1
    front = frozenset(trial.number for trial in study.best_trials) if several and complete else frozenset()
    complete.sort(key=lambda trial: (several and trial.number not in front, sign * trial.values[0], trial.number))
    return Results(sweep, study, tuple(trials), tuple(complete), front)


def trials_table(results: Results) -> Table:
    """Returns the best trials, then those that were pruned or failed."""
    best = [*results.complete, *(trial for trial in results.used if trial not in results.complete)][:_ROWS]
    objectives = results.sweep.settings.objectives
    names = [name for name in objectives if name != MINUTES]
    paths = [path for path in results.sweep.space if any(path in trial.params for trial in results.used)]
    rows = []
    for trial in best:
        measured = () if trial.state == TrialState.FAIL else trial.values or ()
        values, minutes = dict(zip(objectives, measured, strict=False)), trial.user_attrs.get(MINUTES_TAKEN)
        rows.append(
            [
                f"{trial.number}{_PARETO if trial.number in results.front else ''}",
                trial.state.name.lower(),
                *(shown(values[name], name) if name in values else MISSING for name in names),
                *(_setting(trial, path) for path in paths),
                MISSING if minutes is None else in_words(60 * float(minutes)),
            ]
        )
    table = _table(("trial", "state", *names, *paths, "takes"), {"state", *paths}, rows)
    if len(results.used) > len(best):
        table.title, table.title_justify = Text(f"the {len(best)} best of {len(results.used)} trials"), "left"
    return table


def notes(results: Results) -> list[str]:
    """Returns the lines below the table: the number of trials, the Pareto front, what failed."""
    states = Counter(trial.state.name.lower() for trial in results.used)
    counts = ", ".join(f"{states[state]} {state}" for state in ("complete", "pruned", "fail") if states[state])
    lines = [f"{len(results.used)} trials: {counts}"]
    if results.front:
        objectives = ", ".join(results.sweep.settings.objectives)
        lines.append(f"{_PARETO} Pareto front: no other trial is better in all of {objectives}")
    failed = [trial.user_attrs for trial in results.used if trial.state == TrialState.FAIL]
    reasons = Counter(str(attributes.get(REASON, "its process died too often")) for attributes in failed)
    return lines + [f"failed {count} times: {reason}" for reason, count in reasons.items()]


def importance(results: Results) -> Table | str:
    """Returns the importance of each setting, by objective: its share in what makes trials good, in per cent.

    By PED-ANOVA (Watanabe et al., IJCAI 2023). Below 8 complete trials, a line that says so.
    """
    if len(results.complete) < _LEAST_FOR_IMPORTANCE:
        few = f"takes {_LEAST_FOR_IMPORTANCE} complete trials, there are {len(results.complete)}"
        return f"importance of settings: {few}"
    shares: dict[str, dict[str, float]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for at, name in enumerate(results.sweep.settings.objectives):
            evaluator = PedAnovaImportanceEvaluator()
            shares[name] = get_param_importances(results.study, evaluator=evaluator, target=_objective(at))
    paths = dict.fromkeys(path for by_path in shares.values() for path in by_path)
    rows = [
        [path, *(f"{100 * by_path[path]:.0f} %" if path in by_path else MISSING for by_path in shares.values())]
        for path in paths
    ]
    return _table(["importance", *shares], {"importance"}, rows)


def course(results: Results) -> str:
    """Returns the course of the first objective, trial by trial: `best so far ▁▁▅██ .0412 → .0503 (…)`."""
    name, minimised = results.sweep.settings.objectives[0], results.sweep.settings.directions[0] == "minimize"
    by_number = sorted(results.complete, key=lambda trial: trial.number)
    values = list(accumulate((trial.values[0] for trial in by_number), min if minimised else max))
    low, high, count = min(values), max(values), min(len(values), _CURVE_CHARACTERS)
    picked = [values[(number + 1) * len(values) // count - 1] for number in range(count)]
    top = len(_BARS) - 1
    bars = "".join(_BARS[round(top * (value - low) / (high - low)) if high > low else 0] for value in picked)
    return f"best so far {bars} {shown(values[0], name)} → {shown(values[-1], name)} ({name})"


def page(results: Results) -> str:
    """Returns one HTML file that needs no other: Optuna's plots of the study, and all complete trials."""
    sweep, names = results.sweep, results.sweep.settings.objectives
    rows = []
    for trial in results.complete:
        values = (shown(value, name) for value, name in zip(trial.values, names, strict=True))
        rows.append((f"trial {trial.number}", (*values, *(_setting(trial, path) for path in sweep.space))))
    facts = Facts("Complete trials", (*names, *sweep.space), rows)
    return html_page(f"Sweep {sweep.name}", [Items(notes(results)), *_plots(results), facts])


def _plots(results: Results) -> Iterator[Plot]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    names, drawn = results.sweep.settings.objectives, list[tuple[str, Callable[..., Any], dict[str, Any]]]()
    for at, name in enumerate(names):
        options = {"target": _objective(at), "target_name": name}
        drawn.append((f"{name}, trial by trial", plots.plot_optimization_history, options))
        drawn.append((f"{name} by setting", plots.plot_slice, options))
        if len(results.complete) >= _LEAST_FOR_IMPORTANCE:
            options = {**options, "evaluator": PedAnovaImportanceEvaluator()}
            drawn.append((f"Importance of settings for {name}", plots.plot_param_importances, options))
    if len(names) > 1:
        options = {"targets": lambda trial: trial.values[:2], "target_names": list(names[:2])}
        drawn.append(("Pareto front", plots.plot_pareto_front, options))
    if any(trial.intermediate_values for trial in results.used):
        drawn.append(("Validation curves", plots.plot_intermediate_values, {}))
    # The texts are names of settings and their values, in which a dollar sign does not begin a formula.
    style: Any = {"text.parse_math": False, "svg.fonttype": "none"}
    for title, draw, options in drawn:
        with warnings.catch_warnings(), matplotlib.rc_context(style):
            warnings.simplefilter("ignore")
            draw(results.study, **options)
            for axes in pyplot.gcf().axes:
                if axes.get_xscale() == "log":
                    axes.xaxis.set_major_formatter("{x:g}")
            file = io.StringIO()
            pyplot.gcf().savefig(file, format="svg", bbox_inches="tight")
            pyplot.close("all")
        yield Plot(title, (svg_panel(title, title, file.getvalue()),), (), ())


def _objective(at: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[at])


def _setting(trial: FrozenTrial, path: str) -> str:
    """The value of a setting as short text."""
    value = trial.params.get(path)
    return MISSING if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(columns: Sequence[str], left: set[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        # The step stands above its setting, so that neither is cut.
        heading = Text(re.sub(r"[./]", "\n", name), style="bold")
        table.add_column(heading, justify="left" if name in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
