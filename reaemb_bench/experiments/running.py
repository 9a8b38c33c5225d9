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
from reaemb_bench.core.execute import Event, Finished, Watch, execute, fetch_all, watched_by
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.runs import Group, Run, remember
from reaemb_bench.core.store import Store
from reaemb_bench.report.table import Table
from reaemb_bench.tracking.signs import signalling
from reaemb_bench.tracking.terminal import in_words, say, watching

if TYPE_CHECKING:
    from reaemb_bench.tracking.mlflow import Tracker

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
    """Finished plans, the record of their run, and the MLflow trackers that wait for their tables, one per plan."""

    def __init__(self, plans: Sequence[Plan], store: Store, trackers: Sequence[Tracker], run: Run, warn: Say) -> None:
        self._plans, self._store, self._warn = plans, store, warn
        self.trackers, self.run = trackers, run

    def show(self, tables: Sequence[Table]) -> None:
        """Logs the metrics of each seed's ranks, the tables and the report."""
        tracked = any(tracker.outcome == "tracked" for tracker in self.trackers)
        if not tracked or self._plans[0].job_of(Ranks) is None:
            return
        from reaemb_bench.evaluation.summary import summarise

        texts = _texts([self.run], tables, self._store, self._warn)
        for tracker, planned in zip(self.trackers, self._plans, strict=True):
            metrics: dict[str, float] = {}
            for step, ranks in fetch_all(planned, self._store, Ranks).items():
                metrics = summarise(ranks)
                tracker.step_results(step, metrics)
            tracker.results(metrics, texts)


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
    trackers: list[Tracker] = []
    if machine.mlflow:
        from reaemb_bench.tracking.mlflow import Tracker

        options = (machine.mlflow, warn, group, machine.log_models, record)
        trackers = [Tracker(planned, store, *options) for planned in plans]
    finished = False
    try:
        for seed, planned in enumerate(plans):
            watches: list[Watch] = [watch, *trackers[seed : seed + 1]]
            with ExitStack() as shown:
                course = shown.enter_context(signalling(planned, store))
                if isinstance(screen, Console):
                    watches.insert(0, shown.enter_context(watching(planned, screen, course, keep=keep)))
                watches.insert(0, course)
                execute(planned, store, machine, watched_by(*watches))
        yield Tracking(plans, store, trackers, record or remember(plans, store, group), warn)
        finished = True
    finally:
        for tracker in trackers:
            tracker.close(finished)


def group_results(
    group: Group, runs: Sequence[Run], tables: Sequence[Table], machine: Machine, screen: Console
) -> None:
    """Logs the tables of a group, such as an ablation, to its own run in MLflow, one for each data set of its runs.

    A failure there ends in one warning line.
    """
    if not machine.mlflow:
        return
    from reaemb_bench.tracking.mlflow import failure, is_away, log_group

    warn = partial(say, screen)
    by_data: dict[str, list[Run]] = {}
    for run in runs:
        by_data.setdefault(run.data, []).append(run)
    for data, members in by_data.items():
        if is_away(machine.mlflow):
            return
        try:
            log_group(machine.mlflow, group, data, _texts(members, tables, Store(machine.store), warn))
        except Exception as error:  # noqa: BLE001 - a tracking server must never cost anybody a result
            warn(failure(error, machine.mlflow))
            return


def _texts(runs: Sequence[Run], tables: Sequence[Table], store: Store, warn: Say) -> dict[str, str]:
    """Returns the tables and the report by the name of the file that each becomes in MLflow."""
    from reaemb_bench.report.page import report, report_html
    from reaemb_bench.report.render import render_markdown
    from reaemb_bench.tracking.mlflow import TABLE

    texts = {TABLE: "\n".join(map(render_markdown, tables))}
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
