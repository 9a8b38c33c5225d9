"""Execute the plans of a recipe, show progress on the screen, and send everything to MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.execute import Event, Finished, Watch, execute, fetch_all, watched_by
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.runs import Group, Run, remember
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.pool import Say
from reaemb_bench.report.table import Table
from reaemb_bench.tracking.terminal import in_words, say, watching

if TYPE_CHECKING:
    from reaemb_bench.tracking.mlflow import Tracker


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
) -> Iterator[Tracking]:
    """Executes the plans of one recipe, one per seed, and records the run in the store.

    Inside the block everything is computed and MLflow is still open: give it the tables. screen: shows progress and
    warnings; a function takes the warnings alone. record: of a run that finished earlier, sent to MLflow again.
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
                if isinstance(screen, Console):
                    watches.insert(0, shown.enter_context(watching(planned, screen)))
                execute(planned, store, machine, watched_by(*watches))
        yield Tracking(plans, store, trackers, record or remember(plans, store, group), warn)
        finished = True
    finally:
        for tracker in trackers:
            tracker.close(finished)


def group_results(runs: Sequence[Run], tables: Sequence[Table], machine: Machine, screen: Console) -> None:
    """Logs the tables of a group, such as an ablation, to its own run in MLflow, one for each data set of its runs.

    A failure there ends in one warning line.
    """
    if not machine.mlflow:
        return
    from reaemb_bench.tracking.mlflow import failure, is_away, log_group

    warn = partial(say, screen)
    by_group: dict[tuple[Group, str], list[Run]] = {}
    for run in runs:
        by_group.setdefault((Group(run.kind, run.group), run.data), []).append(run)
    for (group, data), members in by_group.items():
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
