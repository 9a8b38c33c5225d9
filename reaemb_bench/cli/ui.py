"""`reaemb-bench ui`: MLflow's pages, on the database that runs are tracked in."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
from contextlib import closing
from typing import Annotated

import typer

from reaemb_bench.cli.options import MlflowPlace, machine_from
from reaemb_bench.errors import UserError
from reaemb_bench.tracking.addresses import database_file, is_server, page_of, redacted
from reaemb_bench.tracking.connection import QUIET
from reaemb_bench.tracking.naming import EXPERIMENT

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
