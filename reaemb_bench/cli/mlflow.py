"""`reaemb-bench push`: tell MLflow of runs that it does not know, from the store."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
import tomllib
from contextlib import closing
from typing import Annotated

import typer
from rich.console import Console

from reaemb_bench.cli.options import LogModels, MlflowPlace, StorePlace, console, machine_from
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, needed_jobs
from reaemb_bench.core.plan import plan as plan_recipe
from reaemb_bench.core.recipe import from_raw
from reaemb_bench.core.runs import Run, find, history
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.running import replayed
from reaemb_bench.report.recipe_tables import tables_of
from reaemb_bench.tracking.addresses import database_file, is_server, page_of, redacted
from reaemb_bench.tracking.mlflow import EXPERIMENT, QUIET, is_away

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


# `reaemb-bench ui`: MLflow's pages, on the database that runs are tracked in.


_HOST = "127.0.0.1"
_MODEL_TRAINING = "workflowType=machine_learning"

Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on this machine.")]


def ui(port: Port = 5000, mlflow: MlflowPlace = None) -> None:
    """Open MLflow on the runs of this folder, for curves, parameters, tables and comparisons; Ctrl-C ends it."""
    uri = _served(machine_from(mlflow=mlflow).mlflow)
    _check_free(port)
    print(f"MLflow shows {redacted(uri)}; open this in a browser, Ctrl-C ends it:")
    for line in _pages(uri, f"http://{_HOST}:{port}"):
        print(f"  {line}")
    print("to compare: tick runs, press Compare; switch on 'Show diff only'")
    print("tables and report of a run: open it, then Artifacts", flush=True)
    # Through the environment, for others can read a command line and an address may hold a password.
    environment = {**QUIET, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    words = ["-m", "mlflow", "ui", "--host", _HOST, "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, [sys.executable, *words], environment)


def _served(uri: str) -> str:
    """The address of the database, absolute. Raises UserError where there is nothing to serve."""
    if not uri:
        raise UserError("nothing is tracked with an empty --mlflow; name the database to show")
    if is_server(uri):
        raise UserError(f"{redacted(uri)} is a server already; open {page_of(uri)} in a browser")
    file = database_file(uri)
    if file is None:
        return uri
    if not file.is_file():
        raise UserError(f"{file} does not exist; run a recipe first, or name another database with --mlflow")
    return f"sqlite:///{file}"


def _pages(uri: str, address: str) -> list[str]:
    """Where to begin: the runs of each data set, where the database is a file; else the list of experiments.

    MLflow shows runs under "Model training" alone, and begins elsewhere unless the page's address says so.
    """
    file = database_file(uri)
    if file is None:
        return [f"{address}/#/experiments?{_MODEL_TRAINING}"]
    asked = "select experiment_id, name from experiments where name like ? and lifecycle_stage = 'active' order by name"
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute(asked, (f"{EXPERIMENT}%",)).fetchall()
    except sqlite3.Error as error:
        raise UserError(f"{file} is no MLflow database ({error}); name another with --mlflow") from None
    return [f"{address}/#/experiments/{number}/runs?{_MODEL_TRAINING}  {name}" for number, name in found] or [address]


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None
