"""Processes of this machine that work for one owner: how they start, how many threads each has, how they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from reaemb_bench.core.errors import UserError, reason_of
from reaemb_bench.core.execute import Event, Finished, Planned, Started, execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Job, plan
from reaemb_bench.core.recipe import from_raw
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.suite import Task
from reaemb_bench.tracking.terminal import Lines

_SECONDS_TO_LEAVE = 10.0


def share_of_threads(machine: Machine, jobs: int) -> int | None:
    """Threads of each of several processes; None leaves torch its own choice, where there is one process alone."""
    if machine.threads is not None or jobs == 1:
        return machine.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def start(module: str, threads: int | None) -> subprocess.Popen[str]:
    """`python -m module` with pipes to its standard input and output; threads: of torch, None leaves them."""
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **limits},
        text=True,
        encoding="utf-8",
    )


def dismiss(process: subprocess.Popen[str]) -> None:
    """End its standard input, at which it leaves; kill it where it does not."""
    assert process.stdin is not None
    try:
        process.stdin.close()
        process.wait(_SECONDS_TO_LEAVE)
    except (OSError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()


# One cell, computed in whatever process: what it is sent as, and what comes back.


Message = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """How a cell ended. reason: why it failed, or nothing. key: of the step that failed, or nothing."""

    reason: str = ""
    key: str = ""


def message(task: Task, machine: Machine) -> Message:
    """The task as JSON data that another process understands, with absolute folders."""
    folders = {"store": str(machine.store.absolute()), "cache": str(machine.cache.absolute())}
    return {
        "recipe": task.planned.recipe.toml(),
        "name": task.planned.recipe.name,
        "seed": task.planned.seed,
        "machine": {**machine.model_dump(mode="json"), **folders},
        "folder": str(Path.cwd()),
    }


def compute(sent: Message, say: Callable[[str], None]) -> Answer:
    """Execute a message's plan; say takes a line of progress now and then. No error of a step gets out."""
    os.chdir(sent["folder"])
    machine = Machine.model_validate(sent["machine"])
    under_way: list[Job] = []
    try:
        planned = plan(from_raw(tomllib.loads(sent["recipe"]), sent["name"]), sent["seed"])
        lines = Lines(planned, say)

        def watch(event: Event) -> None:
            if isinstance(event, Started):
                under_way[:] = [event.job]
            elif isinstance(event, Finished):
                under_way.clear()
            if not (isinstance(event, Planned) or (isinstance(event, Finished) and event.cached)):
                lines(event)

        execute(planned, Store(machine.store), machine, watch)
    except Exception as error:  # noqa: BLE001 - one method's failure must not cost the others their results
        if not isinstance(error, UserError):
            traceback.print_exc()
        if not under_way:
            return Answer(reason_of(error))
        return Answer(f"{under_way[0].name}: {reason_of(error)}", under_way[0].key)
    return Answer()


# Cells in processes of this machine; the store's locks see to it that what they share is computed once.


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
        self.leaving = threading.Event()
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
        process = start("reaemb_bench.experiments.pool", share_of_threads(self._machine, jobs))
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


# Cells as tasks of a Ray cluster, all of whose machines see the store's folder.


def on_ray(tasks: Sequence[Task], machine: Machine, jobs: int, say: Say) -> Iterator[tuple[Task, Answer]]:
    """Each task with its answer, as they finish; at most `jobs` are under way at once.

    RAY_ADDRESS names a cluster; without it Ray starts on this machine. A task whose process dies is tried once more;
    one takes a GPU where the cluster has any. Raises UserError where Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray: Ray is not installed; pip install 'reaemb-bench[ray]'") from None
    if not ray.is_initialized():
        ray.init(num_cpus=None if os.environ.get("RAY_ADDRESS") else jobs, include_dashboard=False, log_to_driver=False)
    threads = share_of_threads(machine, jobs)
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    remote = ray.remote(
        num_cpus=1,
        num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
        max_retries=1,
        runtime_env={"env_vars": limits},
    )(_compute)
    waiting = list(reversed(tasks))
    under_way: dict[Any, Task] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                task = waiting.pop()
                say(task, "handed to Ray")
                under_way[remote.remote(message(task, machine))] = task
            (ended,), _ = ray.wait(list(under_way), num_returns=1)
            task = under_way.pop(ended)
            try:
                answer = ray.get(ended)
            except ray.exceptions.RayError as error:
                answer = Answer(f"its process died twice ({type(error).__name__})")
            yield task, answer
    finally:
        ray.shutdown()


def _compute(sent: Message) -> Answer:
    return compute(sent, lambda line: None)


# A process that computes cells: `python -m reaemb_bench.bench.worker`. One JSON line in, JSON lines of progress out,
# the last of them with the answer. It leaves at once when its standard input ends, so none outlives its owner.


def main() -> None:
    """Compute cells until the standard input ends."""
    # Ctrl-C reaches the whole group of processes; the owner decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What a step prints must not come between the answers.
    os.dup2(2, 1)
    asked: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(asked,), daemon=True).start()

    def write(made: dict[str, Any]) -> None:
        answers.write(json.dumps(made) + "\n")
        answers.flush()

    while True:
        answer = compute(json.loads(asked.get()), lambda line: write({"line": line}))
        write(asdict(answer))


def _listen(asked: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
