"""Reaching MLflow: a client that neither chatters nor hangs, and what is said of one that is away."""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import ssl
import tempfile
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from filelock import FileLock

from reaemb_bench.tracking.addresses import database_file, is_server, page_of, redacted

T = TypeVar("T")

QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    # MLflow sets its level while it is imported, alembic while it creates the tables: both read this.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The pages of runs, with the password of the server's address in them.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Environment of MLflow unless the user chose another: it reports to nobody and does not wait for a silent server."""

_LONGEST_REASON = 120
_SECONDS_AWAY = 300.0
SECONDS_TO_ANSWER = 2
_SECONDS_TO_CREATE_TABLES = 300
_SLOWEST_UPLOAD = 1e6
"""Bytes a second; so much longer than other calls may the upload of files take."""

FAILED_AT: dict[str, float] = {}
"""When this process could not reach an address, by `time.monotonic`."""


def connect(uri: str) -> Any:
    """Returns an MLflow client that logs no noise.

    Connecting raises within seconds if nothing answers at the address, and each later call raises TimeoutError.
    """
    ready = within(SECONDS_TO_ANSWER + 1, lambda: _is_ready(uri))
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
    for logger in ("mlflow", "mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    # It warns of each attempt, but a server that is away may cost one line.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # The lock of the process that creates the tables; its file is there only while that goes on.
    if (file := database_file(uri)) is not None:
        lock = file.with_name(f"{file.name}.lock")
    else:
        digest = hashlib.sha256(f"{getpass.getuser()} {uri}".encode()).hexdigest()[:16]
        lock = Path(tempfile.gettempdir()) / f"reaemb-bench-{digest}.lock"
    # Asked after the tables, which may be half of those of a process that creates them and holds the lock.
    if not ready or lock.exists():
        with FileLock(lock, timeout=_SECONDS_TO_CREATE_TABLES):
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
            lock.unlink(missing_ok=True)
    return _Bounded(MlflowClient(tracking_uri=uri))


class _Bounded:
    """An MLflow client whose calls raise TimeoutError after a few seconds, also if its store is not a server."""

    def __init__(self, client: Any) -> None:
        self._client = client
        attempts = 1 + int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        # A server is given up by MLflow itself, and by name; this is for all other stores.
        self._seconds = 1 + attempts * float(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"])

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*words: Any, **options: Any) -> Any:
            size = 0
            if name in ("log_artifact", "log_artifacts"):
                path = Path(words[1])
                size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
            return within(self._seconds + size / _SLOWEST_UPLOAD, lambda: method(*words, **options))

        return call


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Returns what `ask` returns, or raises what it raises, or TimeoutError if it takes longer."""
    answers: list[T] = []
    errors: list[Exception] = []

    def answer() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001 - raised again by the thread that asked
            errors.append(error)

    # In a thread, because not every driver and no name server can be given a time limit.
    thread = Thread(target=answer, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answers[0]


def _is_ready(uri: str) -> bool:
    """Returns whether the first run need not create tables there. Raises what the driver raises if nothing answers.

    MLflow itself would try again for minutes.
    """
    if is_server(uri):
        page = f"{page_of(uri).rstrip('/')}/health"
        try:
            urllib.request.urlopen(page, timeout=SECONDS_TO_ANSWER).close()  # noqa: S310 - http or https
        except urllib.error.URLError as error:
            # Any page is an answer, and MLflow may have been told to trust this server.
            if not isinstance(error, urllib.error.HTTPError) and not isinstance(error.reason, ssl.SSLError):
                raise
        return True
    if not uri.startswith(("sqlite", "postgresql", "mysql", "mssql")):
        return True
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import OperationalError, SAWarning
    from sqlalchemy.pool import NullPool

    if (file := database_file(uri)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    limit = {"timeout" if file is not None or uri.startswith("mssql") else "connect_timeout": SECONDS_TO_ANSWER}
    try:
        # SQLAlchemy only warns, in every process, of a setting in the address that the driver does not know.
        with warnings.catch_warnings():
            warnings.simplefilter("error", SAWarning)
            engine = create_engine(uri, poolclass=NullPool, connect_args=limit)
        return "alembic_version" in inspect(engine).get_table_names()
    except OperationalError as error:
        # Of SQLite, by a process that creates the tables.
        if "database is locked" in str(error):
            return False
        raise


def is_away(uri: str) -> bool:
    """Returns whether this process could not reach it a moment ago, so that many runs do not wait for it each."""
    return uri in FAILED_AT and time.monotonic() - FAILED_AT[uri] < _SECONDS_AWAY


def is_silence(error: Exception) -> bool:
    """Returns whether nothing answered, so that no other call will be answered either."""
    from requests.exceptions import ConnectionError as Unconnected
    from requests.exceptions import Timeout

    # MLflow raises an error of its own in their place.
    return isinstance(error, TimeoutError) or isinstance(error.__context__, Unconnected | Timeout)


def failure(error: Exception, uri: str) -> str:
    """Returns why MLflow fails, as the start of a warning line without secrets."""
    reason = redacted(f"{type(error).__name__}: {' '.join(str(error).split())}", uri)[:_LONGEST_REASON]
    return f"warning: MLflow at {redacted(uri)} fails, so this run is not tracked there ({reason})"
