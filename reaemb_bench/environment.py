"""What a result was computed with: versions, platform, memory."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import sys

import reaemb_bench

_PACKAGES = ("torch", "transformers", "peft", "numpy", "scipy", "polars", "scikit-learn")


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


def peak_memory_bytes() -> int:
    """The most memory this process has held so far, on the CUDA device where torch uses one, else in RAM."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The unit of ru_maxrss is kilobytes on Linux and bytes on macOS.
    return int(peak if sys.platform == "darwin" else peak * 1024)
