"""Command lines in processes of their own that need not import torch again: one process imports it and forks.

`python -m tests.faults.forks` is that process: one JSON list of cases a line in, one JSON list of answers a line out.
All cases of a list run at once. Before it forks, it computes nothing and starts no thread.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import tomllib
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.faults.dying import At, watch_places
from tests.faults.tiny import RECIPE

ROOT = Path(__file__).parents[2]
SECONDS = 300.0
"""Limit of a list of cases."""
TOO_LONG = -signal.SIGALRM
READY = "ready\n"

_USED = (
    "peft",
    "polars",
    "reaemb_bench.cli.app",
    "reaemb_bench.cli.run",
    "reaemb_bench.data.prepare",
    "reaemb_bench.rl.candidates",
    "reaemb_bench.encoder.lrcl",
    "reaemb_bench.encoder.embed",
    "reaemb_bench.evaluation.ranking",
    "reaemb_bench.evaluation.ranking",
    "reaemb_bench.recommender.score",
    "reaemb_bench.rl.crrl",
    "reaemb_bench.report.page",
    "reaemb_bench.report.results",
    "safetensors.torch",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.qwen2.tokenization_qwen2",
)
"""What a run imports late; a process that is forked has it already."""


@dataclass(frozen=True)
class Case:
    """One command line in `folder`. store: where places are counted, below `folder`. at: what happens at one of them.
    largest: bytes beyond which no file may grow. clock: seconds by which the clock jumps back at each look.
    """

    words: tuple[str, ...]
    folder: str
    store: str = "store"
    at: At | None = None
    largest: int | None = None
    clock: float = 0.0


@dataclass(frozen=True)
class Answer:
    """How a process ended. code: its exit code, -9 where it was killed. places: see `watch_places`; all that it passed
    if it was not killed.
    """

    code: int
    out: str
    err: str
    places: tuple[str, ...]


class Forks:
    """The process that forks; close it."""

    def __init__(self) -> None:
        settings = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **settings, "PYTHONPATH": path, "REAEMB_BENCH_MLFLOW": ""},
            text=True,
        )
        assert self._process.stdout is not None
        # Its imports count in no case's limit.
        assert self._process.stdout.readline() == READY

    def run(self, *cases: Case) -> list[Answer]:
        """Run all cases at once and wait for them."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([asdict(case) for case in cases]) + "\n")
        self._process.stdin.flush()
        answers = json.loads(self._process.stdout.readline())
        return [Answer(**{**answer, "places": tuple(answer["places"])}) for answer in answers]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answer lines until there are none."""
    import torch

    from reaemb_bench.core.recipe import from_raw

    torch.set_num_threads(1)
    for module in _USED:
        import_module(module)
    # So that every component of the recipe is imported and checked once.
    from_raw(tomllib.loads(RECIPE), "tiny")
    print(READY, end="", flush=True)
    for line in sys.stdin:
        cases = [_case(raw) for raw in json.loads(line)]
        print(json.dumps([asdict(answer) for answer in _all(cases)]), flush=True)


def _case(raw: dict[str, Any]) -> Case:
    return Case(**{**raw, "words": tuple(raw["words"]), "at": At(**raw["at"]) if raw["at"] else None})


def _all(cases: Sequence[Case]) -> list[Answer]:
    said = [Path(case.folder) / f"said-{number}" for number, case in enumerate(cases)]
    waiting = {_start(case, files): number for number, (case, files) in enumerate(zip(cases, said, strict=True))}
    codes: dict[int, int] = {}
    last = time.monotonic() + SECONDS
    while waiting:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process in waiting:
            codes[waiting.pop(process)] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > last:
            for left, number in waiting.items():
                os.kill(left, signal.SIGKILL)
                os.waitpid(left, 0)
                codes[number] = TOO_LONG
            break
        else:
            time.sleep(0.01)
    return [_answer(codes[number], files) for number, files in enumerate(said)]


def _answer(code: int, files: Path) -> Answer:
    out, err, places = (files / name for name in ("out", "err", "places"))
    passed = places.read_text(encoding="utf-8").splitlines() if places.is_file() else ()
    return Answer(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"), tuple(passed))


def _start(case: Case, said: Path) -> int:
    said.mkdir(parents=True, exist_ok=True)
    (said / "places").unlink(missing_ok=True)
    process = os.fork()
    if process:
        return process
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = _run(case, said)
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(case: Case, said: Path) -> int:
    from reaemb_bench.cli.app import main
    from reaemb_bench.core import training

    training.SECONDS = 0.0
    os.chdir(case.folder)
    sys.argv = ["reaemb-bench", *case.words]
    if case.clock:
        _let_the_clock_jump(case.clock)
    passed = watch_places(Path(case.folder) / case.store, case.at)
    if case.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (case.largest, resource.RLIM_INFINITY))
    try:
        main()
    except SystemExit as left:
        code = left.code
    if case.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    names = list(passed)
    (said / "places").write_text("\n".join(names), encoding="utf-8")
    return code if isinstance(code, int) else 0


def _let_the_clock_jump(seconds: float) -> None:
    now = time.time()

    def jumping() -> float:
        nonlocal now
        now -= seconds
        return now

    time.time = jumping


if __name__ == "__main__":
    serve()
