"""Cells in processes of this machine; the store's locks see to it that what they share is computed once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread

from reaemb_bench.bench.cell import Answer, Message, message
from reaemb_bench.bench.grid import Task
from reaemb_bench.machine import Machine
from reaemb_bench.store import Store
from reaemb_bench.workers import dismiss, share_of_threads, start

Say = Callable[[Task, str], None]

_ATTEMPTS = 2


def in_processes(tasks: Sequence[Task], machine: Machine, jobs: int, say: Say) -> Iterator[tuple[Task, Answer]]:
    """Each task with its answer, as they finish; at most `jobs` processes compute at once.

    A task whose process dies is tried once more. What needs a step that has failed already is not tried again.
    """
    crew = _Crew(tasks, machine, say)
    threads = [Thread(target=crew.serve, args=(jobs,), daemon=True) for _ in range(min(jobs, len(tasks)))]
    for thread in threads:
        thread.start()
    try:
        for _ in tasks:
            yield crew.done.get()
    finally:
        crew.leaving.set()
        for process in crew.processes:
            dismiss(process)


class _Crew:
    """The tasks that wait, and the processes that take one after the other."""

    def __init__(self, tasks: Sequence[Task], machine: Machine, say: Say) -> None:
        self.done: SimpleQueue[tuple[Task, Answer]] = SimpleQueue()
        self.leaving = Event()
        self.processes: list[subprocess.Popen[str]] = []
        self._waiting: SimpleQueue[tuple[Task, Message]] = SimpleQueue()
        self._failed: dict[str, Answer] = {}
        self._machine, self._say = machine, say
        for task in tasks:
            self._waiting.put((task, message(task, machine)))

    def serve(self, jobs: int) -> None:
        """Hand tasks to one process until none is left."""
        process = None
        while not self.leaving.is_set():
            try:
                task, sent = self._waiting.get_nowait()
            except Empty:
                return
            answer = self._known_to_fail(task)
            attempts = 0
            while answer is None and attempts < _ATTEMPTS and not self.leaving.is_set():
                if process is None or process.poll() is not None:
                    process = self._start(jobs)
                answer = self._ask(process, task, sent)
                attempts += 1
            if answer is None:
                code = None if process is None else process.wait()
                answer = Answer(f"its process died {attempts} times (exit code {code})")
            if answer.key:
                self._failed.setdefault(answer.key, answer)
            self.done.put((task, answer))

    def _known_to_fail(self, task: Task) -> Answer | None:
        store = Store(self._machine.store)
        keys = (job.key for job in task.planned.jobs)
        return next((self._failed[key] for key in keys if key in self._failed and not store.has(key)), None)

    def _start(self, jobs: int) -> subprocess.Popen[str]:
        process = start("reaemb_bench.bench.worker", share_of_threads(self._machine, jobs))
        self.processes.append(process)
        return process

    def _ask(self, process: subprocess.Popen[str], task: Task, sent: Message) -> Answer | None:
        """The answer of a process, or None where it dies before it has one."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(sent) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                heard = json.loads(line)
                if "line" not in heard:
                    return Answer(**heard)
                self._say(task, heard["line"])
        except (OSError, ValueError):
            # Half a line is what a process leaves that is killed while it writes.
            pass
        process.wait()
        return None
