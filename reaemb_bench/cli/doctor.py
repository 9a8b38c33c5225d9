"""`reaemb-bench doctor`: whether this machine has everything that a run needs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement
from rich.markup import escape
from typer import Option

from reaemb_bench.cli.options import machine_options
from reaemb_bench.cli.screen import plain_table, show
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import find, kinds, names
from reaemb_bench.tracking.addresses import database_file, is_server, page_of, redacted

_WANTED_GIGABYTES = 5
_TIMEOUT_SECONDS = 5
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Files of the drivers of NVIDIA GPUs, of GPUs under WSL, and of AMD GPUs."""


class BrokenError(Exception):
    """A check found something that would stop a run."""


@machine_options("device", "store", "cache", "mlflow")
def doctor(
    machine: Machine,
    compute: Annotated[bool, Option("--compute", help="Also multiply matrices on the device.")] = False,
) -> None:
    """Check Python, packages, components, device, disk, cache and MLflow; exit code 1 if something is broken.

    Examples:
    reaemb-bench doctor
    reaemb-bench doctor --compute --device cuda
    """
    wanted = importlib.metadata.metadata("reaemb-bench")["Requires-Python"]
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: f"{platform.python_version()} (wanted {wanted}), {platform.platform()}",
        "packages": _packages,
        "components": _components,
        "device": lambda: _test_multiplication(machine) if compute else _device(machine),
        "store": lambda: _free_disk(machine.store.absolute()),
        "cache": lambda: _cache(machine.cache),
        "mlflow": lambda: _mlflow(machine.mlflow),
    }
    table, broken = plain_table(), False
    for name, check in checks.items():
        try:
            mark, answer = "[green]ok[/]", check()
        except BrokenError as error:
            mark, answer, broken = "[red]broken[/]", str(error), True
        table.add_row(mark, name, escape(answer))
    show(table)
    if broken:
        raise typer.Exit(1)


def _packages() -> str:
    requirements = map(Requirement, importlib.metadata.requires("reaemb-bench") or ())
    needed = [wanted for wanted in requirements if wanted.marker is None or wanted.marker.evaluate({"extra": ""})]
    wrong = []
    for wanted in needed:
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is absent, wanted {wanted.specifier}")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} is {version}, wanted {wanted.specifier}")
    if wrong:
        raise BrokenError("; ".join(wrong))
    return f"{len(needed)} in their ranges"


def _components() -> str:
    wrong, count = [], 0
    for kind in kinds():
        try:
            for name in names(kind):
                count += 1
                find(kind, name)
        except UserError as error:
            wrong.append(f"{kind}: {error}")
    if wrong:
        raise BrokenError("; ".join(wrong))
    return f"{count} import"


def _device(machine: Machine) -> str:
    """What is known of the device without torch, which takes seconds to import."""
    gpu = any(Path(file).exists() for file in _DRIVERS) or shutil.which("nvidia-smi") is not None
    if machine.device.startswith("cuda") and not gpu:
        raise BrokenError(f"no GPU driver is installed, so '{machine.device}' cannot be used; say --device auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    driver = "a GPU driver" if gpu else "no GPU driver"
    return f"torch {importlib.metadata.version('torch')}, {cores} CPU cores, {driver}; --compute tries it out"


def _test_multiplication(machine: Machine) -> str:
    import torch

    try:
        device = machine.torch_device()
        start = time.perf_counter()
        square = torch.ones(256, 256, device=device)
        total = float((square @ square).sum())
        seconds = time.perf_counter() - start
    except (RuntimeError, AssertionError, UserError) as error:
        # Torch raises AssertionError if it was built without the device.
        raise BrokenError(f"{machine.device} does not compute: {' '.join(str(error).split())}") from None
    if total != 256.0**3:
        raise BrokenError(f"{device} computes wrong sums")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__} on {device} ({name}), a 256 x 256 product in {seconds * 1000:.1f} ms"


def _free_disk(folder: Path) -> str:
    gigabytes = shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.is_dir())).free / 1e9
    answer = f"{folder}, {gigabytes:.1f} GB free"
    if gigabytes < _WANTED_GIGABYTES:
        raise BrokenError(f"{answer}, under the {_WANTED_GIGABYTES} GB that models and vectors can take")
    return answer


def _cache(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}, empty: the first run downloads"
    entries = []
    for entry in sorted(folder.iterdir()):
        size = sum(file.stat().st_size for file in (entry, *entry.rglob("*")) if file.is_file())
        entries.append(f"{entry.name} ({size / 1e6:.1f} MB)")
    return f"{folder}: {', '.join(entries) or 'empty'}"


def _mlflow(uri: str) -> str:
    import urllib.request

    shown, file = redacted(uri), database_file(uri)
    if not uri:
        return "tracking is off"
    if file is not None:
        if not file.exists():
            return f"{shown}, to be created by the first run"
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
                connection.execute("select count(*) from runs").fetchone()
        except sqlite3.Error as error:
            cure = "delete it or choose another with --mlflow"
            raise BrokenError(f"{shown} is not an MLflow database ({error}); {cure}") from None
        return f"{shown}, readable"
    if not is_server(uri):
        return f"{shown}, not checked"
    try:
        with urllib.request.urlopen(f"{page_of(uri).rstrip('/')}/health", timeout=_TIMEOUT_SECONDS):
            return f"{shown} answers"
    except OSError as error:
        reason = redacted(str(error), uri)
        raise BrokenError(f"{shown} does not answer ({reason}); start it, or run with --mlflow ''") from None
