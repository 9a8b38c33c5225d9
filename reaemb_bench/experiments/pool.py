"""A pool of workers for `bench` and `sweep`: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine

Message = dict[str, Any]
"""JSON data that another process understands."""
Say = Callable[[str], None]
"""Takes one line of progress."""


@dataclass(frozen=True)
class Answer:
    """How a message ended. reason: why it failed, or empty. key: of the step that failed, or empty."""

    reason: str = ""
    key: str = ""


Work = Callable[[Message, Say], Answer]
"""A function of a module, computed in another process; errors that it raises end that process."""
Submit = Callable[[Message, Say], "Future[Answer]"]


def portable(machine: Machine) -> dict[str, Any]:
    """Returns the machine settings as JSON data with absolute folders."""
    folders = {"store": str(machine.store.absolute()), "cache": str(machine.cache.absolute())}
    return {**machine.model_dump(mode="json"), **folders}


@contextmanager
def processes(work: Work, machine: Machine, jobs: int, attempts: int) -> Iterator[Submit]:
    """Gives a function that submits a message to one of `jobs` processes; leaving the block ends them at once.

    A message whose process dies is tried again in a new one, `attempts` times in all.
    """
    idle: SimpleQueue[_Worker] = SimpleQueue()
    started: list[_Worker] = []
    starting, leaving = Lock(), Event()

    def compute(message: Message, say: Say) -> Answer:
        code = None
        for attempt in range(1, attempts + 1):
            try:
                worker = idle.get_nowait()
            except Empty:
                with starting:
                    if leaving.is_set():
                        break
                    worker = _Worker(work)
                    started.append(worker)
            answer = worker.ask(message, say)
            if answer is not None:
                idle.put(worker)
                return answer
            code = worker.process.exitcode
            if attempt < attempts and not leaving.is_set():
                say(f"a process died (exit code {code}); another takes its place")
        return Answer(f"its process died {attempts} times (exit code {code})")

    threads = ThreadPoolExecutor(jobs)
    # Libraries read their number of threads when they are loaded, so each process needs it from its start.
    limits = _thread_limits(machine, jobs)
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield lambda message, say: threads.submit(compute, message, say)
    finally:
        with starting:
            leaving.set()
        for busy in started:
            busy.process.kill()
        threads.shutdown(cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


class _Worker:
    """One process, and the pipe to it. It is not a daemon, so that steps may start processes of their own."""

    def __init__(self, work: Work) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, work))
        self.process.start()
        theirs.close()

    def ask(self, message: Message, say: Say) -> Answer | None:
        """Returns the answer, or None if the process dies before it has one."""
        try:
            self._pipe.send(message)
            while isinstance(heard := self._pipe.recv(), str):
                say(heard)
        except (EOFError, OSError):
            self.process.join()
            return None
        assert isinstance(heard, Answer)
        return heard


def _serve(pipe: Connection[Any, Any], work: Work) -> None:
    """Computes messages until the pipe ends; leaves at once if the owner dies."""
    # Ctrl-C reaches the whole group of processes; the owner decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Standard output belongs to the owner's tables.
    os.dup2(2, 1)

    def leave_with_owner() -> None:
        owner = multiprocessing.parent_process()
        assert owner is not None
        owner.join()
        os._exit(1)

    Thread(target=leave_with_owner, daemon=True).start()
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        pipe.send(work(message, pipe.send))


@contextmanager
def ray_cluster(work: Work, machine: Machine, jobs: int) -> Iterator[Submit]:
    """Gives a function that submits a message as a task of a Ray cluster, all of whose machines see the store.

    RAY_ADDRESS names a cluster; without it Ray starts on this machine. A task whose process dies is tried once more; a
    task takes a GPU if the cluster has any. Raises UserError if Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray: Ray is not installed; pip install 'reaemb-bench[ray]'") from None
    if not ray.is_initialized():
        ray.init(num_cpus=None if os.environ.get("RAY_ADDRESS") else jobs, include_dashboard=False, log_to_driver=False)
    gpus, environment = int(bool(ray.cluster_resources().get("GPU"))), {"env_vars": _thread_limits(machine, jobs)}

    @ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1, runtime_env=environment)  # type: ignore[untyped-decorator]
    def compute(message: Message) -> Answer:
        return work(message, lambda line: None)

    def submit(message: Message, say: Say) -> Future[Answer]:
        say("handed to Ray")
        future: Future[Answer] = compute.remote(message).future()
        return future

    try:
        yield submit
    finally:
        ray.shutdown()


def _thread_limits(machine: Machine, jobs: int) -> dict[str, str]:
    """Returns the environment that divides the cores between the processes; empty leaves the choice to torch."""
    threads = machine.threads
    if threads is None and jobs > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // jobs)
    return {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
