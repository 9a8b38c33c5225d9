"""A sweep in several processes of this machine; each that dies is replaced, and what it computed is tried again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from threading import Event, Thread

from reaemb_bench.errors import UserError
from reaemb_bench.tuning.sweep import Sweep
from reaemb_bench.tuning.trial import Say
from reaemb_bench.tuning.worker import REFUSED
from reaemb_bench.workers import dismiss, share_of_threads, start

_ATTEMPTS = 10


def in_processes(sweep: Sweep, jobs: int, say: Say, until: float | None = None) -> None:
    """Have `jobs` processes work on the sweep until it is finished. Raises UserError where they die again and again."""
    crew = _Crew(sweep, jobs, say, until)
    threads = [Thread(target=crew.serve, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        crew.dismiss()
    if crew.refused:
        raise UserError(crew.refused[0])


class _Crew:
    def __init__(self, sweep: Sweep, jobs: int, say: Say, until: float | None) -> None:
        self.refused: list[str] = []
        self._leaving = Event()
        self._processes: list[subprocess.Popen[str]] = []
        self._sent = json.dumps({"sweep": sweep.message(), "until": until, "folder": str(Path.cwd())})
        self._threads, self._say = share_of_threads(sweep.machine, jobs), say

    def serve(self) -> None:
        """Keep one process at work until one ends by itself."""
        for _ in range(_ATTEMPTS):
            process = self._start()
            code = self._heard(process)
            if code == 0 or self._leaving.is_set():
                return
            if code == REFUSED:
                return
            self._say(f"a process died (exit code {code}); another takes its place")
        self.refused.append(f"processes of the sweep died {_ATTEMPTS} times; see what they said above")

    def dismiss(self) -> None:
        """End what is still at work."""
        self._leaving.set()
        for process in self._processes:
            dismiss(process)

    def _start(self) -> subprocess.Popen[str]:
        process = start("reaemb_bench.tuning.worker", self._threads)
        self._processes.append(process)
        return process

    def _heard(self, process: subprocess.Popen[str]) -> int:
        """Pass on what the process says; its exit code."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{self._sent}\n")
            process.stdin.flush()
        except OSError:
            # It is dead already; its exit code tells.
            pass
        for line in process.stdout:
            if line.startswith("error: "):
                self.refused.append(line.removeprefix("error: ").strip())
            else:
                self._say(line.rstrip("\n"))
        return process.wait()
