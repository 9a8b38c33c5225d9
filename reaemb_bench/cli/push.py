"""`reaemb-bench push`: tell MLflow of runs that it does not know, from the store."""

from __future__ import annotations

import tomllib
from typing import Annotated

import typer
from rich.console import Console

from reaemb_bench.cli.options import LogModels, MlflowPlace, StorePlace, console, machine_from
from reaemb_bench.cli.running import replayed
from reaemb_bench.cli.tables import tables_of
from reaemb_bench.errors import UserError
from reaemb_bench.machine import Machine
from reaemb_bench.pipeline import Plan, needed_jobs
from reaemb_bench.pipeline import plan as plan_recipe
from reaemb_bench.recipe import from_raw
from reaemb_bench.runs import Run, find, history
from reaemb_bench.store import Store
from reaemb_bench.tracking.addresses import redacted
from reaemb_bench.tracking.connection import is_away

_FAILED = 1

Wanted = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Ids of runs, or names of recipes: the newest run of each."),
]
All = Annotated[bool, typer.Option("--all", help="All runs that the store remembers.")]


def push(
    wanted: Wanted = None,
    everything: All = False,
    store: StorePlace = None,
    mlflow: MlflowPlace = None,
    log_models: LogModels = False,
) -> None:
    """Track runs that were made while MLflow was away; what is there already is left alone.

    Nothing is computed. A run that cannot be pushed gets a line that says why, the others go on, and the code is 1.
    """
    machine = machine_from(store=store, mlflow=mlflow, log_models=log_models)
    if not machine.mlflow:
        raise UserError("nothing is tracked with an empty --mlflow; name the server or database to push to")
    results = Store(machine.store)
    if bool(wanted) == everything:
        raise UserError("name the runs to push, or say --all")
    runs = history(results) if everything else list(dict.fromkeys(find(results, each) for each in wanted or ()))
    screen = console()
    failed = 0
    # Oldest first, so that MLflow lists them as they were run.
    for run in sorted(runs, key=lambda run: run.finished):
        failed += not _push(run, machine, screen)
    if failed:
        raise typer.Exit(_FAILED)


def _push(run: Run, machine: Machine, screen: Console) -> bool:
    """Whether MLflow has the run now. Raises UserError where it cannot be reached at all."""
    results = Store(machine.store)
    try:
        plans = _plans(run, results)
        with replayed(run, plans, machine, screen) as (tracking, trackers):
            if any(tracker.outcome == "tracked" for tracker in trackers):
                tracking.show(tables_of(plans, results))
    except UserError as error:
        _say(screen, run, f"not pushed, {' '.join(str(error).split())}")
        return False
    outcomes = [tracker.outcome for tracker in trackers]
    if "failed" in outcomes:
        if is_away(machine.mlflow):
            raise UserError(f"{redacted(machine.mlflow)} cannot be reached; push again when it can")
        _say(screen, run, "not pushed whole; push it again")
        return False
    new = outcomes.count("tracked")
    _say(screen, run, f"pushed, {new} of {len(outcomes)} seeds new" if new else "there already")
    return True


def _plans(run: Run, results: Store) -> list[Plan]:
    """The plans of a remembered run. Raises UserError where they are others by now or results are lost."""
    recipe = from_raw(tomllib.loads(run.recipe), run.name)
    plans = [plan_recipe(recipe, seed) for seed in run.seeds]
    for planned, known in zip(plans, run.results, strict=True):
        now = [(job.name, job.key) for job in planned.jobs]
        before = [(result.step, result.key) for result in known]
        if now != before:
            step = next(name for name, key in now if (name, key) not in before)
            raise UserError(f"step '{step}' would have another result now: its code or data changed; run it again")
        if needed_jobs(planned, results):
            raise UserError("its results are no longer in the store; run it again")
    return plans


def _say(screen: Console, run: Run, line: str) -> None:
    screen.print(f"{run.id} {run.name}: {line}", markup=False, highlight=False, soft_wrap=True)
