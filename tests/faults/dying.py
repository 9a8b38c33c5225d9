"""Where a process can be made to die: at every tick, and before, in the middle of and behind every change of files.

`watch_places(folder, at)` numbers these places in the order in which the process comes to them, and notes their names.
At one of them it does what `at.does` says.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Does = Literal["die", "die soon", "lose the store"]

_EVENTS = {
    "open": 0,
    "os.rename": 0,
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.chmod": 0,
    "shutil.rmtree": 0,
    "shutil.copytree": 1,
}
"""What Python tells its audit hooks of before it happens, and which argument is the file."""
_SOON = 0.02


@dataclass(frozen=True)
class At:
    """The place with this number, from 1, or the first whose name begins so, and what happens there.

    share: of a file that is being written, what reaches the disk; of the time until a process dies soon.
    """

    number: int = 0
    begins: str = ""
    does: Does = "die"
    share: float = 0.5


def watch_places(folder: Path, at: At | None) -> list[str]:
    """Names of the places passed so far, in order; it grows."""
    passed: list[str] = []
    root = str(folder.absolute())
    waiting = [at] if at else []

    def pass_by(name: str, cut: Callable[[float], None] | None = None) -> None:
        passed.append(name)
        if not waiting or not _is_at(waiting[0], len(passed), name):
            return
        here = waiting.pop()
        if cut is not None and here.does == "die":
            # A process that goes on writes files whole.
            cut(here.share)
        _DEEDS[here.does](folder, here.share)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or not arguments:
            return
        reads = event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        argument = arguments[_EVENTS[event]]
        if reads or not isinstance(argument, str | os.PathLike):
            return
        # The command line names the store relative to the working folder.
        file = Path(argument).absolute()
        if file.is_relative_to(root):
            pass_by(f"{event} {file.relative_to(root)}")

    _watch_ticks(pass_by)
    _watch_writes(pass_by, root)
    sys.addaudithook(heard)
    return passed


Pass = Callable[..., None]


def _is_at(at: At, number: int, name: str) -> bool:
    return name.startswith(at.begins) if at.begins else number == at.number


def _watch_ticks(pass_by: Pass) -> None:
    from reaemb_bench.core import execute

    # A subclass, because modules that are imported later ask for events of this class.
    class Ticked(execute.Progressed):
        def __init__(self, job: Any, progress: Any) -> None:
            pass_by(f"tick {job.name} {progress.unit} {progress.done}")
            super().__init__(job, progress)

    execute.Progressed = Ticked  # type: ignore[misc]


def _watch_writes(pass_by: Pass, root: str) -> None:
    import polars
    import safetensors.numpy
    import safetensors.torch

    def after(owner: Any, name: str, position: int) -> None:
        """Have the file that a function has written count as half written."""
        writes = getattr(owner, name)

        def written(*words: Any, **named: Any) -> Any:
            result = writes(*words, **named)
            file = Path(words[position])
            if str(file.absolute()).startswith(root):
                pass_by(f"{name} {file.absolute().relative_to(root)}", lambda share: _cut(file, share))
            return result

        setattr(owner, name, written)

    after(Path, "write_text", 0)
    after(safetensors.numpy, "save_file", 1)
    after(safetensors.torch, "save_file", 1)
    after(polars.DataFrame, "write_parquet", 1)
    sync = os.fsync

    def synced(handle: int) -> None:
        pass_by("fsync", lambda share: _cut(handle, share))
        sync(handle)

    os.fsync = synced  # type: ignore[assignment]


def _cut(file: Path | int, share: float) -> None:
    """Have only a part of the file be there. What is not open for writing stays as it is."""
    with contextlib.suppress(OSError):
        size = os.fstat(file).st_size if isinstance(file, int) else file.stat().st_size
        os.truncate(file, int(share * size))


def _die(folder: Path, share: float) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_soon(folder: Path, share: float) -> None:
    threading.Timer(share * _SOON, _die, (folder, share)).start()


def _lose(folder: Path, share: float) -> None:
    shutil.rmtree(folder)


_DEEDS: dict[str, Callable[[Path, float], None]] = {"die": _die, "die soon": _die_soon, "lose the store": _lose}
