"""What a result was computed with: versions, platform, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import reaemb_bench

if TYPE_CHECKING:
    from reaemb_bench.machine import Machine

_PACKAGES = ("torch", "transformers", "peft", "numpy", "scipy", "polars", "scikit-learn")
_STATUS = Path("/proc/self/status")
_PROCESSORS = Path("/proc/cpuinfo")
_CLEAR = Path("/proc/self/clear_refs")


def versions() -> dict[str, str]:
    """Versions of this package, Python, the platform and the packages that decide numbers."""
    made = {
        "reaemb-bench": reaemb_bench.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in _PACKAGES:
        try:
            made[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            made[package] = "absent"
    return made


def circumstances(machine: Machine) -> dict[str, str | int | bool]:
    """Where and how a step was computed: processor or GPU, and the settings that can change the last bits.

    A step without torch uses no GPU, so torch is asked only where it has been imported.
    """
    torch = sys.modules.get("torch")
    device, precision, threads = _processor(), str(machine.precision), machine.threads or os.cpu_count() or 1
    if torch is not None:
        here = machine.torch_device()
        device = torch.cuda.get_device_name(here) if here.type == "cuda" else f"{device} ({here.type})"
        precision = str(machine.torch_dtype()).removeprefix("torch.")
        threads = torch.get_num_threads()
    return {"device": device, "precision": precision, "threads": threads, "deterministic": machine.deterministic}


@cache
def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = _PROCESSORS.read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def git_state() -> str:
    """Revision of the working folder, with `-dirty` behind it where tracked files were changed; empty without git.

    Git is asked once a process and folder.
    """
    return _git_state(Path.cwd())


@cache
def _git_state(folder: Path) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    asked = subprocess.run(
        [git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""


def forget_peak_memory() -> None:
    """Have `peak_memory` start anew from what the process holds now, where the system can."""
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")


def peak_memory() -> dict[str, int | str]:
    """Most bytes held since `forget_peak_memory`, and of what: CUDA memory where torch uses it, else RAM.

    peak_memory_of is `cuda`, `ram`, or `ram of the whole process` where the system cannot start anew.
    """
    cuda = _cuda()
    if cuda is not None:
        return {"peak_memory_bytes": int(cuda.max_memory_allocated()), "peak_memory_of": "cuda"}
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # The unit of ru_maxrss is kilobytes on Linux and bytes on macOS.
        kilobytes = peak // 1024 if sys.platform == "darwin" else peak
    of = "ram" if _CLEAR.exists() else "ram of the whole process"
    return {"peak_memory_bytes": kilobytes * 1024, "peak_memory_of": of}


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
