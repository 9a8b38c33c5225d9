"""Execute a recipe's plans while people watch: what `run` and the verbs that run variants of a recipe share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.execute import Event, Finished, Watch, execute, fetch_all, watched_by
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.runs import Group, Run, remember
from reaemb_bench.core.store import Store
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
        """Take one event of the pipeline."""
        if isinstance(event, Finished):
            (self._cached if event.cached else self._computed).add(event.job.key)

    def in_words(self, seconds: float) -> str:
        """`computed 3 steps, 5 cached, in 12 s`."""
        cached = len(self._cached - self._computed)
        if not self._computed:
            return f"everything was cached: {cached} steps, {in_words(seconds)}"
        return f"computed {len(self._computed)} steps, {cached} cached, in {in_words(seconds)}"


@contextmanager
def executed(
    plans: Sequence[Plan], machine: Machine, screen: Console, counts: Watch, group: Group | None = None
) -> Iterator[Tracking]:
    """Execute the plans of one recipe, one a seed, and write down in the store that they were run.

    Inside, everything is computed and MLflow still open: give it the tables.
    """
    results = Store(machine.store)
    with _trackers(plans, results, machine, screen, group) as trackers:
        for planned, tracker in zip(plans, trackers, strict=True):
            with watching(planned, screen) as view:
                execute(planned, results, machine, watched_by(view, counts, *([tracker] if tracker else [])))
        yield Tracking(plans, results, trackers, remember(plans, results, group), screen)


@contextmanager
def replayed(
    run: Run, plans: Sequence[Plan], machine: Machine, screen: Console
) -> Iterator[tuple[Tracking, Sequence[Tracker]]]:
    """Tell MLflow of a run whose results, one plan a seed, are all in the store; nothing is computed or remembered.

    Inside, MLflow is still open: give it the tables. Afterwards each tracker says what became of its seed.
    """
    results = Store(machine.store)
    group = Group(run.kind, run.group) if run.group else None
    with _trackers(plans, results, machine, screen, group, record=run) as opened:
        trackers = [tracker for tracker in opened if tracker is not None]
        for planned, tracker in zip(plans, trackers, strict=True):
            execute(planned, results, machine, tracker)
        yield Tracking(plans, results, trackers, run, screen), trackers


class Tracking:
    """Finished plans, the record of their run, and the MLflow trackers that wait for their results."""

    def __init__(
        self, plans: Sequence[Plan], results: Store, trackers: Sequence[Tracker | None], run: Run, screen: Console
    ) -> None:
        self._plans = plans
        self._results = results
        self._trackers = trackers
        self._screen = screen
        self.run = run

    def show(self, tables: Sequence[Table]) -> None:
        """Log the metrics of each seed's ranks, the tables as people see them, and the report."""
        tracked = [pair for pair in zip(self._trackers, self._plans, strict=True) if pair[1].job_of(Ranks)]
        if not any(tracker for tracker, _ in tracked):
            return
        from reaemb_bench.evaluation.summary import summarise

        texts = _texts([self.run], tables, self._results, self._screen)
        for tracker, planned in tracked:
            if tracker is None:
                continue
            ranks_by_step = fetch_all(planned, self._results, Ranks)
            for step, ranks in ranks_by_step.items():
                tracker.step_results(step, summarise(ranks))
            tracker.results(summarise(list(ranks_by_step.values())[-1]), texts)


def group_results(runs: Sequence[Run], tables: Sequence[Table], machine: Machine, screen: Console) -> None:
    """Show the tables of a group, such as an ablation, on its own run in MLflow: one for each data set of its runs.

    Whatever goes wrong there ends in one warning line.
    """
    if not machine.mlflow:
        return
    from reaemb_bench.tracking.mlflow import failure, is_away, log_group

    together: dict[tuple[Group, str], list[Run]] = {}
    for run in runs:
        together.setdefault((Group(run.kind, run.group), run.data), []).append(run)
    for (group, data), members in together.items():
        if is_away(machine.mlflow):
            return
        texts = _texts(members, tables, Store(machine.store), screen)
        try:
            log_group(machine.mlflow, group, data, texts)
        except Exception as error:  # noqa: BLE001 - a tracking server must never cost anybody a result
            say(screen, failure(error, machine.mlflow))
            return


def _texts(runs: Sequence[Run], tables: Sequence[Table], results: Store, screen: Console) -> dict[str, str]:
    """What people see of the runs, by the name of the file that it becomes."""
    from reaemb_bench.report import render as markdown
    from reaemb_bench.report.page import report_html
    from reaemb_bench.tracking.mlflow import TABLE

    texts = {TABLE: "\n".join(markdown.render_markdown(each) for each in tables)}
    try:
        texts["report.html"] = report_html(runs, results)
    except Exception as error:  # noqa: BLE001 - what only MLflow shows must never cost anybody a result
        say(screen, f"warning: MLflow gets no report.html ({type(error).__name__}: {' '.join(str(error).split())})")
    return texts


@contextmanager
def _trackers(
    plans: Sequence[Plan],
    results: Store,
    machine: Machine,
    screen: Console,
    group: Group | None,
    record: Run | None = None,
) -> Iterator[Sequence[Tracker | None]]:
    """One MLflow tracker a plan, or None where nothing is tracked; all are closed whatever happens inside."""
    if not machine.mlflow:
        yield [None] * len(plans)
        return
    from reaemb_bench.tracking.mlflow import Tracker

    trackers = [
        Tracker(planned, results, machine.mlflow, partial(say, screen), group, machine.log_models, record)
        for planned in plans
    ]
    finished = False
    try:
        yield trackers
        finished = True
    finally:
        for tracker in trackers:
            tracker.close(finished)
