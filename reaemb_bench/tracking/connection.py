"""Reaching MLflow: a client that neither chatters nor hangs, the experiment of a data set, servers that are away."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from reaemb_bench.tracking.addresses import database_file
from reaemb_bench.tracking.naming import experiment_name

QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    # MLflow sets its level while it is imported, alembic while it creates the tables: both read this.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment of MLflow where nobody chose another: it reports to nobody and gives a silent server up soon."""

_SECONDS_AWAY = 300.0
_KIND_TAG = "mlflow.experimentKind"
_KIND = "custom_model_development"

_failed: dict[str, float] = {}


def connect(uri: str) -> Any:
    """An MLflow client that logs no noise and does not hang for minutes where no server answers."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns of each attempt, and one line is what a server that is away may cost.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def experiment_of(client: Any, uri: str, data: str) -> str:
    """Id of the experiment of a data set, made where there is none. Raises LookupError where somebody deleted it."""
    name = experiment_name(data)
    known = client.get_experiment_by_name(name)
    if known is None:
        known = _made(client, uri, name)
    if known.lifecycle_stage != "active":
        raise LookupError(f"experiment '{name}' was deleted there; restore it, or remove it for good with mlflow gc")
    return str(known.experiment_id)


def _made(client: Any, uri: str, name: str) -> Any:
    # Beside the database, for MLflow's own choice is whatever folder the first run was started from.
    file = database_file(uri)
    beside = None if file is None else (file.resolve().parent / "mlruns").as_uri()
    try:
        client.create_experiment(name, artifact_location=beside, tags={_KIND_TAG: _KIND})
    except Exception:
        # Another process may have made it meanwhile.
        if client.get_experiment_by_name(name) is None:
            raise
    return client.get_experiment_by_name(name)


def is_away(uri: str) -> bool:
    """Whether this process could not reach it a moment ago, so that each of many runs need not wait for it."""
    return uri in _failed and time.monotonic() - _failed[uri] < _SECONDS_AWAY


def note_away(uri: str) -> None:
    """Remember that it could not be reached."""
    _failed[uri] = time.monotonic()


def note_here(uri: str) -> None:
    """Remember that it answers again."""
    _failed.pop(uri, None)
