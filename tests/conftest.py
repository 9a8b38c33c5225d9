"""Fixtures that many tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch  # noqa: F401 - loaded before any verb, so that no test of this process gets components without networks

from reaemb_bench.cli.app import main

# No test asks the public homes of data sets for anything.
os.environ.setdefault("REAEMB_BENCH_MIRROR", "http://127.0.0.1:9")
TOYS = Path(__file__).parent / "helpers" / "toy_steps.py"


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def toy_recipe(tmp_path: Path) -> Path:
    """A recipe of toy steps with all of the road's artefacts."""
    file = tmp_path / "toys.toml"
    tables = {"prepare": "Prepare", "embed": "Embed", "train": "Fit", "rank": "Judge"}
    lines = ['title = "Toys"', f"steps = {list(tables)}"]
    lines += [f"[{name}]\nuse = '{TOYS}:{step}'" for name, step in tables.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs the command line in this process, in a folder of its own, tracking nothing unless told to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REAEMB_BENCH_MLFLOW", "")
    # The option --cache sets it for the processes that a verb starts; the next test has its own.
    monkeypatch.setenv("REAEMB_BENCH_CACHE", os.environ.get("REAEMB_BENCH_CACHE", ""))

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["reaemb-bench", *(str(word) for word in words)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        code = left.value.code
        assert isinstance(code, int)
        return Said(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MLflow database without runs, made once, for that takes seconds."""
    from reaemb_bench.tracking.connection import connect

    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{file}").search_experiments()
    return file.read_bytes()


@pytest.fixture
def uri(tmp_path: Path, empty_database: bytes) -> str:
    """Address of an MLflow database without runs."""
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    return f"sqlite:///{tmp_path}/mlflow.db"
