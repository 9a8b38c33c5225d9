"""A study in PostgreSQL: a private cluster on a socket of its own, started for this test."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.experiments.test_sweep import STORE, Command, lines, toys

__all__ = ["toys"]

_UNPRIVILEGED = "nobody"


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs: on the path, or where Debian keeps them."""
    found = shutil.which("pg_ctl")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return Path(found).parent if found else debian[-1].parent if debian else None


@pytest.fixture
def database() -> Iterator[str]:
    """URL of an empty database."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("the package psycopg is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    # PostgreSQL refuses to run as root.
    other = {"user": _UNPRIVILEGED} if os.geteuid() == 0 else {}
    if other:
        shutil.chown(folder, _UNPRIVILEGED)

    def call(program: str, *words: str) -> None:
        subprocess.run([programs / program, *words], check=True, cwd=folder, stdout=subprocess.DEVNULL, **other)  # type: ignore[call-overload]

    data = str(folder / "data")
    try:
        call("initdb", "-D", data, "-U", "sweep", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        call("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql+psycopg://sweep:secret@/postgres?host={folder}"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_processes_share_a_study_and_one_that_dies_far_away_is_missed_by_its_heartbeat(
    command: Command, toys: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["sweep", "toys.toml", "--storage", database]
    toys.with_name("order").write_text("die once", encoding="utf-8")
    first = subprocess.run([sys.executable, "-m", "reaemb_bench", *words], stdout=subprocess.DEVNULL, check=False)
    assert first.returncode == -signal.SIGKILL
    # As a host without a share in the store would leave it.
    shutil.rmtree(STORE / "sweeps/toys/workers")
    with monkeypatch.context() as patched:
        patched.setattr("reaemb_bench.experiments.sweep._GRACE_SECONDS", 1)
        # Its last heartbeat must be older than that when the next trial is asked for.
        time.sleep(2)
        said = command(*words, "--trials", 2)
    assert said.code == 0, said.err
    assert "secret" not in said.out and "postgresql+psycopg://***@" in said.out
    found = optuna.load_study(study_name="toys", storage=database)
    assert [trial.state for trial in found.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert found.trials[1].params == found.trials[0].params
    other = subprocess.Popen([sys.executable, "-m", "reaemb_bench", *words], stdout=subprocess.DEVNULL)
    assert command(*words).code == 0 and other.wait() == 0
    assert [trial.state for trial in found.get_trials()].count(TrialState.COMPLETE) == 6
    assert len(lines(toys, "done")) == 6
