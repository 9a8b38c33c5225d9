"""Processes of this machine that work for one owner: how they start, how many threads each has, how they leave."""

from __future__ import annotations

import os
import subprocess
import sys

from reaemb_bench.machine import Machine

_SECONDS_TO_LEAVE = 10.0


def share_of_threads(machine: Machine, jobs: int) -> int | None:
    """Threads of each of several processes; None leaves torch its own choice, where there is one process alone."""
    if machine.threads is not None or jobs == 1:
        return machine.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def start(module: str, threads: int | None) -> subprocess.Popen[str]:
    """`python -m module` with pipes to its standard input and output; threads: of torch, None leaves them."""
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **limits},
        text=True,
        encoding="utf-8",
    )


def dismiss(process: subprocess.Popen[str]) -> None:
    """End its standard input, at which it leaves; kill it where it does not."""
    assert process.stdin is not None
    try:
        process.stdin.close()
        process.wait(_SECONDS_TO_LEAVE)
    except (OSError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
