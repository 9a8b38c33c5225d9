"""Clocks, memory and facts of the machine; the standard library alone, so that every environment can import it."""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 2**20


@dataclass
class Spent:
    """Wall-clock seconds and processor seconds of all threads; filled when the measured block ends."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def clocked() -> Iterator[Spent]:
    """Measure the block: `with clocked() as spent: ...`, then read `spent`."""
    spent = Spent()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        spent.wall, spent.cpu = time.perf_counter() - wall, time.process_time() - cpu


def resident() -> int:
    """Bytes of memory that this process holds now, or its peak so far if the system does not say."""
    return _status("VmRSS") or _peak_of_life()


def forget_peak() -> None:
    """Make `peak` count from here, if the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak() -> int:
    """Most bytes of memory held since `forget_peak`.

    Not `ru_maxrss`, which on Linux a fresh process inherits from the one that started it.
    """
    return _status("VmHWM") or _peak_of_life()


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)


def _peak_of_life() -> int:
    peak_of_life = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_of_life if sys.platform == "darwin" else peak_of_life * 1024


def limit_threads(threads: int) -> None:
    """Make numeric libraries use this many threads; must run before they are imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)


def machine() -> dict[str, Any]:
    """Processor, cores, Python, torch and the date, for the head of a result file."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def written(result: dict[str, Any], file: Path | None) -> str:
    """The result as JSON, also written to `file` if one is given."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(file.name + ".part")
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(file)
    return text


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table whose first `left` columns are aligned to the left."""
    lines = [headings, ["---"] * left + ["---:"] * (len(headings) - left), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def where(facts: dict[str, Any]) -> str:
    """One line about the machine, for below a table."""
    return (
        f"{facts['processor']}, {facts['threads']} of {facts['cores']} cores, torch {facts['torch']}, {facts['date']}"
    )
