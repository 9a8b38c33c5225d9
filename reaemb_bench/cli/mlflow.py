"""Verbs about MLflow: `push` tracks remembered runs later, `ui` opens MLflow's pages on them."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated
from urllib.request import urlopen

import typer
from typer import Argument, Option

from reaemb_bench.cli.options import Words, machine_options, run_names
from reaemb_bench.cli.screen import say
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import from_raw
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.addresses import database_file, is_server, page_of, redacted

if TYPE_CHECKING:
    from reaemb_bench.core.runs import Run

_HOST = "127.0.0.1"
_SECONDS_BETWEEN_QUESTIONS = 0.5
_ACTIVE = """select experiment_id, name, exists (
    select 1 from experiment_tags where experiment_tags.experiment_id = experiments.experiment_id and key = ?
) from experiments where name like ? and lifecycle_stage = 'active' order by name"""
_MODEL_TRAINING = "workflowType=machine_learning"
"""MLflow shows runs under "Model training" only, and starts elsewhere unless the address says so."""


@machine_options("store", "mlflow", "log_models")
def push(
    machine: Machine,
    wanted: Annotated[Words, Argument(metavar="[RUN]...", help="Ids or names.", autocompletion=run_names)] = None,
    everything: Annotated[bool, Option("--all", help="All runs that the store remembers.")] = False,
) -> None:
    """Track runs that were made while MLflow was away; what is already there is left alone.

    Nothing is computed. A run that cannot be pushed gets a line that says why, the others continue, and the exit code
    is 1.

    Examples:
    reaemb-bench push quickstart --mlflow http://localhost:5000
    reaemb-bench push --all
    """
    from reaemb_bench.core.runs import find, history

    if not machine.mlflow:
        raise UserError("nothing is tracked with an empty --mlflow; name the server or database to push to")
    if bool(wanted) == everything:
        raise UserError("name the runs to push, or say --all")
    store = Store(machine.store)
    runs = history(store) if everything else list(dict.fromkeys(find(store, name) for name in wanted or ()))
    outcomes = []
    # Oldest first, so that MLflow lists them in the order in which they ran.
    for run in sorted(runs, key=lambda run: run.finished):
        pushed, line = _push(run, machine, store)
        say(f"{run.id} {run.name}: {line}")
        outcomes.append(pushed)
    if not all(outcomes):
        raise typer.Exit(1)


def _push(run: Run, machine: Machine, store: Store) -> tuple[bool, str]:
    """Whether MLflow has the run now, and a line about it. Raises UserError if MLflow cannot be reached at all."""
    from reaemb_bench.core.plan import needed_jobs, plan
    from reaemb_bench.core.plugins import only_stored_code
    from reaemb_bench.core.runs import identities_of
    from reaemb_bench.experiments.running import executed
    from reaemb_bench.report.recipe_tables import tables_of
    from reaemb_bench.tracking.connection import is_away

    try:
        identities = identities_of(run, store)
        if not identities:
            raise UserError("its results are no longer in the store; run it again")
        with only_stored_code(identities):
            recipe = from_raw(tomllib.loads(run.recipe), run.name)
            plans = [plan(recipe, seed) for seed in run.seeds]
        for planned, results in zip(plans, run.results, strict=True):
            remembered = [(result.step, result.key) for result in results]
            changed = [job.name for job in planned.jobs if (job.name, job.key) not in remembered]
            if changed or len(planned.jobs) != len(remembered):
                step = changed[0] if changed else remembered[-1][0]
                raise UserError(f"step '{step}' would have another result now: its code or data changed; run it again")
            if needed_jobs(planned, store):
                raise UserError("its results are no longer in the store; run it again")
        with executed(plans, machine, say, lambda event: None, record=run) as tracking:
            tracker = tracking.tracker
            assert tracker is not None
            if tracker.outcome == "tracked":
                tracking.show(tables_of(plans, store))
    except UserError as error:
        return False, f"not pushed, {' '.join(str(error).split())}"
    if tracker.outcome == "failed":
        if is_away(machine.mlflow):
            raise UserError(f"{redacted(machine.mlflow)} cannot be reached; push again when it can")
        return False, "not pushed whole; push it again"
    new = tracker.outcome == "tracked"
    return True, f"pushed, {tracker.new} of {len(plans)} seeds new" if new else "already there"


@machine_options("mlflow")
def ui(machine: Machine, port: Annotated[int, Option(min=1, max=65535, help="Port on this machine.")] = 5000) -> None:
    """Open MLflow on the runs of this folder, for curves, parameters, tables and comparisons; Ctrl-C ends it.

    Examples:
    reaemb-bench ui
    reaemb-bench ui --port 8080 --mlflow sqlite:///elsewhere/mlflow.db
    """
    from reaemb_bench.tracking.connection import QUIET
    from reaemb_bench.tracking.mlflow import EXPERIMENT, VIEW

    uri, address = machine.mlflow, f"http://{_HOST}:{port}"
    if not uri:
        raise UserError("nothing is tracked with an empty --mlflow; name the database to show")
    if is_server(uri):
        raise UserError(f"{redacted(uri)} is a server already; open {page_of(uri)} in a browser")
    # Where to start: the runs of each data set if the database is a file, else the list of experiments.
    pages = [f"{address}/#/experiments?{_MODEL_TRAINING}"]
    if (file := database_file(uri)) is not None:
        if not file.is_file():
            raise UserError(f"{file} does not exist; run a recipe first, or name another database with --mlflow")
        uri = f"sqlite:///{file}"
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
                rows = connection.execute(_ACTIVE, (f"mlflow.sharedViewState.{VIEW}", f"{EXPERIMENT}%")).fetchall()
        except sqlite3.Error as error:
            raise UserError(f"{file} is not an MLflow database ({error}); name another with --mlflow") from None
        pages = [
            f"{address}/#/experiments/{number}/runs?{_MODEL_TRAINING}{f'&viewStateShareKey={VIEW}' * arranged}  {name}"
            for number, name, arranged in rows
        ]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise UserError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from None
    # In the environment, because others can read a command line and an address may hold a password.
    environment = {**QUIET, "UVICORN_LOG_LEVEL": "warning", **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    words = [sys.executable, "-m", "mlflow", "ui", "--host", _HOST, "--port", str(port), "--workers", "1"]
    print(f"MLflow starts on {redacted(uri)}", flush=True)
    # It ends as on Ctrl-C, and the server with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with subprocess.Popen(words, env=environment) as server, suppress(KeyboardInterrupt):
        try:
            while server.poll() is None and not _answers(f"{address}/health"):
                time.sleep(_SECONDS_BETWEEN_QUESTIONS)
            if server.poll() is None:
                print("open this in a browser, Ctrl-C ends it:")
                for page in pages or [address]:
                    print(f"  {page}")
                print(
                    "click a column to sort by it; to compare: tick runs, press Compare; the second button draws charts"
                )
                print("tables and report of a run: open it, then Artifacts", flush=True)
            code = server.wait()
        finally:
            server.terminate()
        raise typer.Exit(code)


def _answers(page: str) -> bool:
    try:
        with urlopen(page, timeout=_SECONDS_BETWEEN_QUESTIONS):  # noqa: S310 - this machine
            return True
    except OSError:
        return False
