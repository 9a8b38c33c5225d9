"""A tracker that is away or new: what it costs, and that first runs that start together are all tracked."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from reaemb_bench.tracking.mlflow import connect
from tests.conftest import Said

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


FIRST = """
import sys, time
from pathlib import Path
from reaemb_bench.tracking import mlflow
import mlflow.tracking
Path(sys.argv[2]).touch()
while not Path(sys.argv[3]).exists():
    time.sleep(0.01)
from reaemb_bench.tracking.mlflow import connect
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
