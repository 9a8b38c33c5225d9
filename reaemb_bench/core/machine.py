"""Machine settings: where and how fast a recipe runs, never what it computes. They enter no key.

On a CPU the same recipe gives the same bits on the same machine with the same packages and number of threads, because
every step draws from a seed of its own. On a GPU sums may be added up in an order that differs from run to run, which
`--deterministic` forbids. Such runs, and runs on two devices, differ by rounding, a relative 6e-8 in float32 and 4e-3
in bfloat16 an operation, which training amplifies: compare them by their spread over seeds.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, Field

import reaemb_bench
from reaemb_bench.core.errors import UserError

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "transformers", "peft", "numpy", "scipy", "polars", "scikit-learn")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class Machine(BaseModel):
    """Device, precision, memory and folders of one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: str = "auto"
    """`auto` takes a GPU if there is one; else `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the language model's arithmetic; `auto` is bfloat16 on CUDA and float32 elsewhere."""
    micro_batch: int | None = Field(default=None, ge=1, le=1_000_000)
    """Prompts that pass through the language model at once; None chooses by device. Results do not depend on it beyond
    rounding."""
    threads: int | None = Field(default=None, ge=1, le=4096)
    """CPU threads of torch, set by the command line before torch starts; None leaves torch's own choice."""
    deterministic: bool = False
    """Whether torch may use deterministic algorithms alone: the bits of a GPU then repeat, at a price in time. Those of
    a CPU repeat anyway."""
    store: Path = Path(".reaemb-bench/store")
    """Folder of all computed results."""
    cache: Path = user_cache_path("reaemb-bench")
    """Folder of downloaded data and weights, shared by all projects."""
    mlflow: str = "sqlite:///mlflow.db"
    """MLflow tracking URI; an empty string tracks nothing."""
    log_models: bool = False
    """Whether recommenders and vectors are copied to MLflow too."""

    def device_name(self) -> str:
        """The name of the device to compute on, such as `cuda`; imports torch only if this machine may have a GPU."""
        drivers = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
        if self.device == "cpu" or (self.device == "auto" and not any(driver.exists() for driver in drivers)):
            return "cpu"
        return str(self.torch_device())

    def torch_device(self) -> torch.device:
        """The torch device to compute on. Raises UserError if it does not exist."""
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise UserError(f"--device: torch knows no device '{self.device}'; say auto, cpu, cuda or mps") from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UserError(f"--device: torch finds no CUDA device here, so '{self.device}' cannot be used; say auto")
        return device

    def precision_name(self) -> str:
        """`float32` or `bfloat16`: the precision of the language model, said without importing torch if possible."""
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if self.device_name().startswith("cuda") else "float32"

    def torch_dtype(self) -> torch.dtype:
        """The floating-point type of the language model's arithmetic."""
        import torch

        return torch.bfloat16 if self.precision_name() == "bfloat16" else torch.float32


@contextmanager
def repeatable(machine: Machine) -> Iterator[None]:
    """A block in which torch uses deterministic algorithms alone, if the machine settings ask for it.

    Raises UserError if an operation inside has none.
    """
    if not machine.deterministic:
        yield
        return
    # cuBLAS reads how to lay out its scratch memory when torch first uses a GPU; with this its sums repeat.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(". ")[0]
        raise UserError(f"--deterministic: {reason}; leave the option out, or choose another component") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def versions() -> dict[str, str]:
    """Versions of this package, Python, the platform and the packages that decide numbers."""
    installed = dict.fromkeys(("reaemb-bench", "python", "platform", *_PACKAGES), "absent")
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    own = {"python": platform.python_version(), "platform": platform.platform()}
    return {**installed, "reaemb-bench": reaemb_bench.__version__, **own}


def circumstances(machine: Machine) -> dict[str, str | int | bool]:
    """Where and how a step was computed: processor or GPU, and the settings that can change the last bits."""
    torch = sys.modules.get("torch")
    device, precision, threads = _processor(), str(machine.precision), machine.threads or os.cpu_count() or 1
    # A step without torch uses no GPU.
    if torch is not None:
        chosen = machine.torch_device()
        device = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"{device} ({chosen.type})"
        precision, threads = machine.precision_name(), torch.get_num_threads()
    return {"device": device, "precision": precision, "threads": threads, "deterministic": machine.deterministic}


@cache
def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def git_state() -> str:
    """Revision of the working folder, followed by `-dirty` if tracked files were changed; empty without git."""
    return _git_state(Path.cwd())


@cache
def _git_state(folder: Path) -> str:
    git = shutil.which("git") or "git"
    command = [git, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    with contextlib.suppress(OSError):
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else ""
    return ""


def forget_peak_memory() -> None:
    """Have `peak_memory` start anew from what the process holds now, if the system can."""
    if cuda := _cuda():
        cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5", encoding="ascii")


def peak_memory() -> dict[str, int | str]:
    """Most bytes held since `forget_peak_memory`, and of what: CUDA memory if torch uses it, else RAM.

    peak_memory_of is `cuda`, `ram`, or `ram of the whole process` if the system cannot start anew.
    """
    if cuda := _cuda():
        return {"peak_memory_bytes": int(cuda.max_memory_allocated()), "peak_memory_of": "cuda"}
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # The unit of ru_maxrss is kilobytes on Linux and bytes on macOS.
        kilobytes = peak // 1024 if sys.platform == "darwin" else peak
    of = "ram" if _CLEAR_REFS.exists() else "ram of the whole process"
    return {"peak_memory_bytes": kilobytes * 1024, "peak_memory_of": of}


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
