"""A tracker that is away or new: what it costs, and that first runs that start together are all tracked."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.tracking.connection import connect
from reaemb_bench.tracking.mlflow import IDENTITY_TAG
from tests.conftest import Said

pytestmark = pytest.mark.slow

Command = Callable[..., Said]


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
    for connection in accepted:
        connection.close()


@pytest.fixture
def closed() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


KINDS = {
    "a server that hangs": "http://me:secret@127.0.0.1:{silent}",
    "a server that is not there": "http://127.0.0.1:{closed}",
    "a host without a name": "http://nowhere.invalid:5000",
    "a database server that hangs": "postgresql+psycopg://me:secret@127.0.0.1:{silent}/runs",
    "a database server that is not there": "postgresql+psycopg://me:secret@127.0.0.1:{closed}/runs",
    "a file that is not a database": "sqlite:///{folder}/text.db",
    "a file that is a folder": "sqlite:///{folder}/folder.db",
    "a file below a file": "sqlite:///{folder}/text.db/mlflow.db",
    "a setting that the driver does not know": "sqlite:///{folder}/new.db?nosuch=1",
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_tracker_that_is_away_costs_one_line_and_under_five_seconds(
    kind: str, command: Command, toy_recipe: Path, tmp_path: Path, silent: int, closed: int
) -> None:
    if "psycopg" in KINDS[kind]:
        pytest.importorskip("psycopg")
    (tmp_path / "text.db").write_text("this is not a database", encoding="utf-8")
    (tmp_path / "folder.db").mkdir()
    command("run", toy_recipe)
    start = time.monotonic()
    assert command("run", toy_recipe, "--set", "train.rate=0.2").code == 0
    without = time.monotonic() - start
    uri = KINDS[kind].format(silent=silent, closed=closed, folder=tmp_path)
    words = [sys.executable, "-m", "reaemb_bench", "run", str(toy_recipe), "--mlflow", uri, "--set", "seeds=[1, 2]"]
    start = time.monotonic()
    said = command(*words[3:])
    assert said.code == 0, said.err
    assert time.monotonic() - start - without < 5
    assert (said.out + said.err).count("warning") == 1, said.out + said.err
    assert "later: reaemb-bench push toys" in said.out
    assert "secret" not in said.out + said.err


class Forgetful(BaseHTTPRequestHandler):
    """Answers the client as an MLflow server does and keeps nothing, until the server has given all its `answers`."""

    server: TrackingServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answers, or hangs for ever."""
        self.server.asked += 1
        if self.server.asked > self.server.answers:
            self.server.ended.wait()
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        info = {"run_id": "1", "experiment_id": "1", "status": "FINISHED", "artifact_uri": str(self.server.files)}
        run = {"run": {"info": info, "data": {"tags": [{"key": IDENTITY_TAG, "value": "1"}]}}}
        experiment = {"experiment_id": "1", "name": "reaemb-bench/toys", "lifecycle_stage": "active"}
        pages: dict[str, Any] = {"experiments/get-by-name": {"experiment": experiment}}
        pages |= dict.fromkeys(("runs/create", "runs/get", "runs/update"), run)
        body = json.dumps(pages.get(self.path.rpartition("/mlflow/")[2].partition("?")[0], {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_GET  # noqa: N815 - the names that the server looks for

    def log_message(self, format: str, *words: object) -> None:
        """Prints nothing."""


class TrackingServer(ThreadingHTTPServer):
    """A tracking server that hangs once it was asked more than `answers` times."""

    asked, answers = 0, 1_000_000

    def __init__(self, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), Forgetful)
        self.files, self.ended = files, threading.Event()
        # A connection that its client gave up before it was accepted would be waited for, and `shutdown` with it.
        self.socket.settimeout(1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    """A tracking server in a thread."""
    with TrackingServer(tmp_path / "files") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.ended.set()
        server.shutdown()


def test_no_line_of_a_tracked_run_shows_the_password(
    command: Command, toy_recipe: Path, server: TrackingServer
) -> None:
    said = command("run", toy_recipe, "--mlflow", f"http://me:secret@127.0.0.1:{server.server_port}")
    assert server.asked > 10
    assert "warning" not in said.out + said.err
    assert "secret" not in said.out + said.err


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_server_that_hangs_in_the_middle_of_a_run_costs_one_line_and_under_five_seconds(
    share: float, command: Command, toy_recipe: Path, server: TrackingServer
) -> None:
    words = ["run", toy_recipe, "--mlflow", f"http://me:secret@127.0.0.1:{server.server_port}", "--set"]
    command(*words, "seeds=[1, 2]")
    server.asked, start = 0, time.monotonic()
    assert "warning" not in command(*words, "seeds=[3, 4]").out
    without = time.monotonic() - start
    server.asked, server.answers, start = 0, int(share * server.asked), time.monotonic()
    said = command(*words, "seeds=[5, 6]")
    assert said.code == 0, said.err
    assert time.monotonic() - start - without < 5
    assert (said.out + said.err).count("warning") == 1, said.out + said.err
    assert "later: reaemb-bench push toys" in said.out
    assert "secret" not in said.out + said.err
    assert server.asked == server.answers + 1, "after the first call without an answer there is no other"


@pytest.mark.slow
@pytest.mark.parametrize("hanging", ["create_run", "log_artifact", "set_terminated"])
def test_a_database_that_hangs_in_the_middle_of_a_run_costs_one_line_and_under_five_seconds(
    hanging: str, command: Command, toy_recipe: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", toy_recipe, "--mlflow", uri, "--set"]
    command(*words, "seeds=[1, 2]")
    start = time.monotonic()
    command(*words, "seeds=[3, 4]")
    without = time.monotonic() - start
    ended = threading.Event()
    monkeypatch.setattr(f"mlflow.tracking.MlflowClient.{hanging}", lambda *words, **options: ended.wait())
    start = time.monotonic()
    said = command(*words, "seeds=[5, 6]")
    ended.set()
    assert said.code == 0, said.err
    assert time.monotonic() - start - without < 5
    assert (said.out + said.err).count("warning") == 1, said.out + said.err


FIRST = """
import sys, time
from pathlib import Path
from reaemb_bench.tracking import connection
import mlflow.tracking
Path(sys.argv[2]).touch()
while not Path(sys.argv[3]).exists():
    time.sleep(0.01)
from reaemb_bench.tracking.connection import connect
client = connect(sys.argv[1])
client.create_run(client.search_experiments()[0].experiment_id)
"""


def test_first_runs_that_start_together_are_all_tracked(tmp_path: Path) -> None:
    uri, go = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "go"
    here = [tmp_path / f"here-{number}" for number in range(4)]
    words = [sys.executable, "-c", FIRST, uri]
    started = [subprocess.Popen([*words, file, go], stderr=subprocess.PIPE, text=True) for file in here]
    while not all(file.exists() for file in here):
        assert all(process.poll() is None for process in started)
        time.sleep(0.05)
    go.touch()
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (4,)
    assert not list(tmp_path.glob("*.lock"))


def test_tables_that_were_created_by_half_are_not_taken_for_all(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("create table unrelated (number integer)")
    assert connect(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()
