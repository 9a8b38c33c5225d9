"""What a result was computed with: versions, platform, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import reaemb_bench

_PACKAGES = ("torch", "transformers", "peft", "numpy", "scipy", "polars", "scikit-learn")
_STATUS = Path("/proc/self/status")
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


def git_state() -> str:
    """Revision of the working folder, with `-dirty` behind it where tracked files were changed; empty without git."""
    git = shutil.which("git")
    if git is None:
        return ""
    asked = subprocess.run(
        [git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
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
