"""Signs of life: a small file in the store for each process that computes, by which `watch` follows it from elsewhere.

A process writes its file at most once a second, whole or not at all, and every few seconds even if nothing changed: a
reader then knows a slow process from a dead one. Files older than a day are deleted by the next process that writes.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from threading import Event as Signal
from threading import Thread
from typing import Any

from reaemb_bench.core.errors import reason_of
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.terminal import Course, StepCourse

SECONDS_BETWEEN_SIGNS = 5.0
"""After which a process that is alive has written again."""
_KEPT_SECONDS = 86_400.0
_FOLDER = "running"
_FIELDS = ("title", "name", "started", "ended")


@contextmanager
def signalling(planned: Plan, store: Store) -> Iterator[Course]:
    """Gives the course of a plan, to be told of its events; a thread writes it to the store while the block runs.

    A store that cannot be written stays without signs: they must never cost anybody a result.
    """
    course, leaving = Course.of(planned, store), Signal()
    folder, owner = store.root / _FOLDER, {"host": platform.node() or "host", "pid": os.getpid()}
    file, last = folder / f"{owner['host']}-{owner['pid']}.json", ("", 0.0)

    def write() -> None:
        nonlocal last
        steps = [asdict(step) for step in course.steps]
        facts = {**owner, **{name: getattr(course, name) for name in _FIELDS}, "steps": steps}
        text, now = json.dumps(facts), time.time()
        if text != last[0] or now - last[1] >= SECONDS_BETWEEN_SIGNS:
            last = text, now
            with suppress(OSError):
                write_atomically(file, json.dumps({**facts, "written": now}).encode())

    def keep_writing() -> None:
        while not leaving.wait(1.0):
            write()

    with suppress(OSError):
        for other in folder.glob("*.json"):
            if time.time() - other.stat().st_mtime > _KEPT_SECONDS:
                other.unlink(missing_ok=True)
    writer = Thread(target=keep_writing, daemon=True)
    writer.start()
    try:
        yield course
        course.ended = "finished"
    except BaseException as error:
        course.fail("interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {reason_of(error)}")
        raise
    finally:
        leaving.set()
        writer.join()
        write()


@dataclass(frozen=True)
class Sign:
    """The last sign of a process. written: seconds since 1970 by the clock of its host."""

    host: str
    pid: int
    course: Course
    written: float

    @property
    def process(self) -> str:
        """Its name in commands."""
        return f"{self.host}-{self.pid}"

    def is_lost(self) -> bool:
        """Whether it ran on this host and is gone without having ended."""
        if self.course.ended or self.host != platform.node() or os.name != "posix":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


def read_signs(store: Store) -> list[Sign]:
    """The last sign of each process that computed in the store within a day, the newest last."""
    read = []
    for file in (store.root / _FOLDER).glob("[!.]*.json"):
        try:
            facts: dict[str, Any] = json.loads(file.read_bytes())
            steps = [StepCourse(**step) for step in facts["steps"]]
            course = Course(**{name: facts[name] for name in _FIELDS}, steps=steps)
            read.append(Sign(facts["host"], facts["pid"], course, facts["written"]))
        except (OSError, ValueError, TypeError, KeyError):
            # Another version of this package wrote it, or it is just being deleted.
            continue
    return sorted(read, key=lambda sign: sign.written)
