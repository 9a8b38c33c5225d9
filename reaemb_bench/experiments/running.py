"""Execute recipes: in this process, with progress on the screen and results in MLflow, or in a pool of processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Event as Signal
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from rich.console import Console

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import Event, Finished, Watch, execute, watched_by
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.runs import Group, Run, remember
from reaemb_bench.core.store import Store
from reaemb_bench.report.table import Table
from reaemb_bench.tracking.signs import signalling
from reaemb_bench.tracking.terminal import in_words, say, watching

if TYPE_CHECKING:
    from reaemb_bench.tracking.mlflow import Tracker

LONGEST_WAIT = 1.0
"""Seconds of one wait for a process. After polars is imported Ctrl-C no longer ends a wait, so none may be endless."""
Message = dict[str, Any]
"""JSON data that another process understands."""
Say = Callable[[str], None]
"""Takes one line of progress."""


class Counts:
    """Counts results, each once: several seeds and variants often share steps."""

    def __init__(self) -> None:
        self._computed: set[str] = set()
        self._cached: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Takes one event of the pipeline."""
        if isinstance(event, Finished):
            (self._cached if event.cached else self._computed).add(event.job.key)

    def in_words(self, seconds: float) -> str:
        """Returns `computed 3 steps, 5 cached, in 12 s`."""
        cached = len(self._cached - self._computed)
        if not self._computed:
            return f"everything was cached: {cached} steps, {in_words(seconds)}"
        return f"computed {len(self._computed)} steps, {cached} cached, in {in_words(seconds)}"


class Tracking:
    """The record of a finished run, and its MLflow tracker, which waits for the tables; None if nothing is tracked."""

    def __init__(self, plans: Sequence[Plan], store: Store, tracker: Tracker | None, run: Run, warn: Say) -> None:
        self._ranked, self._store, self._warn = plans[0].job_of(Ranks) is not None, store, warn
        self.tracker, self.run = tracker, run

    def show(self, tables: Sequence[Table]) -> None:
        """Logs the tables and the report."""
        if self.tracker is not None and self.tracker.outcome == "tracked" and self._ranked:
            self.tracker.results(_texts([self.run], tables, self._store, self._warn))


@contextmanager
def executed(
    plans: Sequence[Plan],
    machine: Machine,
    screen: Console | Say,
    watch: Watch,
    group: Group | None = None,
    record: Run | None = None,
    *,
    keep: bool = True,
) -> Iterator[Tracking]:
    """Executes the plans of one recipe, one per seed, and records the run in the store.

    Inside the block everything is computed and MLflow is still open: give it the tables. screen: shows progress and
    warnings; a function takes the warnings alone. record: of a run that finished earlier, sent to MLflow again.
    keep: whether the view of the steps stays on the screen.
    """
    store = Store(machine.store)
    warn = partial(say, screen) if isinstance(screen, Console) else screen
    tracker: Tracker | None = None
    if machine.mlflow:
        from reaemb_bench.tracking.mlflow import Tracker

        tracker = Tracker(plans, store, machine.mlflow, warn, group, machine.log_models, record)
    finished = False
    try:
        for planned in plans:
            watches: list[Watch] = [watch, *([tracker] if tracker is not None else [])]
            with ExitStack() as shown:
                course = shown.enter_context(signalling(planned, store))
                if isinstance(screen, Console):
                    watches.insert(0, shown.enter_context(watching(planned, screen, course, keep=keep)))
                watches.insert(0, course)
                execute(planned, store, machine, watched_by(*watches))
        run = record or remember(plans, store, group)
        if tracker is not None:
            tracker.arrange()
        yield Tracking(plans, store, tracker, run, warn)
        finished = True
    finally:
        if tracker is not None:
            tracker.close(finished)


def group_results(
    group: Group, runs: Sequence[Run], tables: Sequence[Table] | str, machine: Machine, screen: Console
) -> None:
    """Logs the tables of a group, such as an ablation, to its own run in MLflow, one for each data set of its runs.

    tables: a text if the runs rank nothing. A failure there ends in one warning line.
    """
    if not machine.mlflow:
        return
    from reaemb_bench.tracking.connection import failure, is_away
    from reaemb_bench.tracking.mlflow import TABLE, log_group

    warn = partial(say, screen)
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        by_data.setdefault(run.data, []).append(run)
    for data, members in by_data.items():
        if is_away(machine.mlflow):
            return
        try:
            texts = {TABLE: tables} if isinstance(tables, str) else _texts(members, tables, Store(machine.store), warn)
            log_group(machine.mlflow, group, data, texts)
        except Exception as error:  # noqa: BLE001 - a tracking server must never cost anybody a result
            warn(failure(error, machine.mlflow))
            return


def _texts(runs: Sequence[Run], tables: Sequence[Table], store: Store, warn: Say) -> dict[str, str]:
    """Returns the tables and the report by the name of the file that each becomes in MLflow."""
    from reaemb_bench.report.page import report, report_html, what_differs
    from reaemb_bench.report.render import render_markdown
    from reaemb_bench.tracking.mlflow import TABLE

    texts = {TABLE: "\n".join(map(render_markdown, tables))}
    if (differing := what_differs({run.name: run for run in runs})).rows:
        settings = [path for path, _ in differing.rows]
        by_run = zip(differing.columns, *(values for _, values in differing.rows), strict=True)
        lines = [f"| {' | '.join(cells)} |" for cells in (("", *settings), ["---"] * (1 + len(settings)), *by_run)]
        texts[TABLE] = "\n".join([f"**{differing.heading}**", "", *lines, "", texts[TABLE]])
    try:
        texts["report.html"] = report_html(report(runs, store), store)
    except Exception as error:  # noqa: BLE001 - a page that only MLflow shows must never cost anybody a result
        warn(f"warning: MLflow gets no report.html ({type(error).__name__}: {' '.join(str(error).split())})")
    return texts


# A pool of workers for `bench` and `sweep`: processes of this machine, or tasks of a Ray cluster.


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
    starting, leaving = Lock(), Signal()

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
