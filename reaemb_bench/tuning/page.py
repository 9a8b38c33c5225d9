"""A page with the plots of a study: one HTML file that loads nothing else."""

from __future__ import annotations

import html
import io
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from reaemb_bench.tuning.report import LEAST_FOR_IMPORTANCE, Found
from reaemb_bench.tuning.sweep import Sweep

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "svg{max-width:100%;height:auto}table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;"
    "border-bottom:1px solid #e3e6ea}figure{margin:2rem 0}"
)
_FRONT_AT_MOST = 3

Draw = Callable[["Study"], Any]


def page(found: Found, sweep: Sweep) -> str:
    """The page as HTML, its plots as SVG inside."""
    title = html.escape(f"Sweep {sweep.name}")
    drawn = (f"<figcaption>{html.escape(caption)}</figcaption>{svg}" for caption, svg in _plots(found, sweep))
    figures = "".join(f"<figure>{each}</figure>" for each in drawn)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    body = f"<h1>{title}</h1>{_table(found, sweep)}{figures}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _table(found: Found, sweep: Sweep) -> str:
    heads = ["trial", *sweep.settings.objectives, *sweep.space]
    rows = []
    for trial in found.complete:
        settings = (str(trial.params.get(path, "")) for path in sweep.space)
        rows.append([str(trial.number), *(f"{value:.5g}" for value in trial.values), *settings])
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _plots(found: Found, sweep: Sweep) -> Iterator[tuple[str, str]]:
    from optuna.visualization import matplotlib as plots

    if not found.complete:
        return
    for place, name in enumerate(sweep.settings.objectives):
        of = {"target": _objective(place), "target_name": name}
        yield f"{name}, trial by trial", _svg(partial(plots.plot_optimization_history, **of), found)
        yield f"{name} by setting", _svg(partial(plots.plot_slice, **of), found)
        if len(found.complete) >= LEAST_FOR_IMPORTANCE:
            yield f"importance for {name}", _svg(partial(plots.plot_param_importances, **of), found)
    if any(trial.intermediate_values for trial in found.used):
        yield "validation curves", _svg(plots.plot_intermediate_values, found)
    if found.several and len(found.study.directions) <= _FRONT_AT_MOST:
        yield "Pareto front", _svg(plots.plot_pareto_front, found)


def _objective(place: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[place])


def _svg(draw: Draw, found: Found) -> str:
    import matplotlib
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "sweep", "figure.figsize": (9, 5)})
        draw(found.study)
        figure = pyplot.gcf()
        file = io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        pyplot.close("all")
    text = file.getvalue()
    # What stands before names a document type on the network.
    return text[text.index("<svg") :]
