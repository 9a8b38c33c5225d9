"""`reaemb-bench doctor`: is everything here that a run needs?"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import typer
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from reaemb_bench.cli.options import CachePlace, Device, MlflowPlace, StorePlace, console, machine_from
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import find, kinds, names
from reaemb_bench.tracking.addresses import page_of, redacted, without_secrets

_GIGABYTE = 1e9
_WANTED_GIGABYTES = 5
_TIMEOUT_SECONDS = 5


class BrokenError(Exception):
    """A check found something that a run would stumble over."""


def doctor(
    device: Device = "auto", store: StorePlace = None, cache: CachePlace = None, mlflow: MlflowPlace = None
) -> None:
    """Check Python, packages, device, disk, cache and MLflow; exit code 1 if something is broken."""
    machine = machine_from(device=device, store=store, cache=cache, mlflow=mlflow)
    checks: dict[str, Callable[[], str]] = {
        "python": _python,
        "packages": _packages,
        "components": _components,
        "device": lambda: _device(machine),
        "store": lambda: _disk(machine.store),
        "cache": lambda: _cache(machine.cache),
        "mlflow": lambda: _mlflow(machine.mlflow),
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    broken = 0
    for name, check in checks.items():
        try:
            mark, found = "[green]ok[/]", check()
        except BrokenError as error:
            mark, found = "[red]broken[/]", str(error)
            broken += 1
        table.add_row(mark, name, escape(found))
    console().print(table)
    if broken:
        raise typer.Exit(1)


def _python() -> str:
    wanted = importlib.metadata.metadata("reaemb-bench")["Requires-Python"]
    return f"{platform.python_version()} (wanted {wanted}), {platform.platform()}"


def _packages() -> str:
    wrong = []
    count = 0
    for line in importlib.metadata.requires("reaemb-bench") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is absent, wanted {wanted.specifier}")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} is {version}, wanted {wanted.specifier}")
    if wrong:
        raise BrokenError("; ".join(wrong))
    return f"{count} in their ranges"


def _components() -> str:
    wrong = []
    count = 0
    for kind in kinds():
        try:
            known = names(kind)
        except UserError as error:
            wrong.append(str(error))
            continue
        for name in known:
            count += 1
            try:
                find(kind, name)
            except UserError as error:
                wrong.append(f"{kind} {name}: {error}")
    if wrong:
        raise BrokenError("; ".join(wrong))
    return f"{count} import"


def _device(machine: Machine) -> str:
    import torch

    try:
        device = machine.torch_device()
        begun = time.perf_counter()
        square = torch.ones(256, 256, device=device)
        total = float((square @ square).sum())
        seconds = time.perf_counter() - begun
    except (RuntimeError, AssertionError, UserError) as error:
        # Torch raises AssertionError where it was built without the device that is asked for.
        raise BrokenError(f"{machine.device} does not compute: {' '.join(str(error).split())}") from None
    if total != 256.0**3:
        raise BrokenError(f"{device} computes wrong sums")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__} on {device} ({name}), a 256 x 256 product in {seconds * 1000:.1f} ms"


def _disk(folder: Path) -> str:
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(there).free / _GIGABYTE
    found = f"{folder.absolute()}, {free:.1f} GB free"
    if free < _WANTED_GIGABYTES:
        raise BrokenError(f"{found}, under the {_WANTED_GIGABYTES} GB that models and vectors can take")
    return found


def _cache(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}, empty: the first run downloads"
    kept = []
    for each in sorted(folder.iterdir()):
        files = [each] if each.is_file() else [file for file in each.rglob("*") if file.is_file()]
        kept.append(f"{each.name} ({sum(file.stat().st_size for file in files) / 1e6:.1f} MB)")
    return f"{folder}: {', '.join(kept) or 'empty'}"


def _mlflow(uri: str) -> str:
    if not uri:
        return "nothing is tracked"
    shown = redacted(uri)
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        if not file.exists():
            return f"{shown}, to be made by the first run"
        try:
            with sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True) as connection:
                connection.execute("select count(*) from runs").fetchone()
        except sqlite3.Error as error:
            raise BrokenError(
                f"{shown} is no MLflow database ({error}); delete it or choose another with --mlflow"
            ) from None
        return f"{shown}, readable"
    if uri.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(f"{page_of(uri).rstrip('/')}/health", timeout=_TIMEOUT_SECONDS):
                return f"{shown} answers"
        except (urllib.error.URLError, OSError) as error:
            reason = without_secrets(str(error), uri)
            raise BrokenError(f"{shown} does not answer ({reason}); start it, or run with --mlflow ''") from None
    return f"{shown}, not checked"
