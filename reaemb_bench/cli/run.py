"""`reaemb-bench run`: compute what is missing, show the table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from reaemb_bench.artifacts import Corpus, Floors, Holdout, Ranks
from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    CachePlace,
    Device,
    Drops,
    MicroBatch,
    MlflowPlace,
    Precision,
    RecipePlace,
    Sets,
    StorePlace,
    Threads,
    console,
    limit_threads,
    machine_from,
)
from reaemb_bench.distributed import is_first, joined
from reaemb_bench.machine import Machine
from reaemb_bench.pipeline import Event, Finished, Plan, Watch, execute, facts_of, fetch, fetch_all
from reaemb_bench.pipeline import plan as plan_recipe
from reaemb_bench.recipe import load, locate
from reaemb_bench.reporting.expected import Expected, changes, read_expected
from reaemb_bench.store import Store
from reaemb_bench.tracking.terminal import in_words, watching

if TYPE_CHECKING:
    from reaemb_bench.tracking.mlflow import Tracker

ProcessTimeout = Annotated[
    float,
    typer.Option(
        envvar="REAEMB_BENCH_PROCESS_TIMEOUT",
        min=1.0,
        help="Under torchrun: seconds without an answer after which another process counts as lost.",
    ),
]


def run(
    recipe: RecipePlace = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    device: Device = "auto",
    precision: Precision = "auto",
    micro_batch: MicroBatch = None,
    threads: Threads = None,
    store: StorePlace = None,
    cache: CachePlace = None,
    mlflow: MlflowPlace = None,
    process_timeout: ProcessTimeout = 600.0,
) -> None:
    """Run a recipe: every step whose result is not in the store yet, for each seed, then the table.

    Under torchrun, several processes share the work of the steps on the language model.
    """
    machine = machine_from(
        device=device,
        precision=precision,
        micro_batch=micro_batch,
        threads=threads,
        store=store,
        cache=cache,
        mlflow=mlflow,
    )
    limit_threads(machine)
    read = load(recipe, sets or (), drops or ())
    # Before anything runs, so that a mistake in the file costs no results.
    expected = read_expected(locate(recipe), changes(sets or (), drops or ()))
    plans = [plan_recipe(read, seed) for seed in read.seeds]
    with joined(machine, process_timeout) as here:
        if is_first():
            _run_and_report(plans, here, expected)
        else:
            for planned in plans:
                execute(planned, Store(here.store), here, lambda event: None)


def _run_and_report(plans: Sequence[Plan], machine: Machine, expected: Expected) -> None:
    screen = console()
    results = Store(machine.store)
    begun = time.monotonic()
    counts = _Counts()
    with _tracking(plans, results, machine, screen) as trackers:
        for planned, tracker in zip(plans, trackers, strict=True):
            with watching(planned, screen) as view:
                execute(planned, results, machine, _all_of(view, counts, *([tracker] if tracker else [])))
        _report(plans, results, screen, trackers, expected)
    screen.print(counts.in_words(time.monotonic() - begun), highlight=False)


class _Counts:
    """Counts results, each once: several seeds often share steps."""

    def __init__(self) -> None:
        self._computed: set[str] = set()
        self._cached: set[str] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished):
            (self._cached if event.cached else self._computed).add(event.job.key)

    def in_words(self, seconds: float) -> str:
        cached = len(self._cached - self._computed)
        if not self._computed:
            return f"everything was cached: {cached} steps, {in_words(seconds)}"
        return f"computed {len(self._computed)} steps, {cached} cached, in {in_words(seconds)}"


def _all_of(*watches: Watch) -> Watch:
    def watch(event: Event) -> None:
        for each in watches:
            each(event)

    return watch


@contextmanager
def _tracking(
    plans: Sequence[Plan], results: Store, machine: Machine, screen: Console
) -> Iterator[Sequence[Tracker | None]]:
    """One MLflow tracker a plan, or None where nothing is tracked; all are closed whatever happens inside."""
    if not machine.mlflow:
        yield [None] * len(plans)
        return
    from reaemb_bench.tracking.mlflow import Tracker

    def warn(line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    trackers = [Tracker(planned, results, machine.mlflow, warn) for planned in plans]
    finished = False
    try:
        yield trackers
        finished = True
    finally:
        for tracker in trackers:
            tracker.close(finished)


def _report(
    plans: Sequence[Plan], results: Store, screen: Console, trackers: Sequence[Tracker | None], expected: Expected
) -> None:
    by_plan = [fetch_all(planned, results, Ranks) for planned in plans]
    if not by_plan[0]:
        return
    from reaemb_bench.evaluation.summary import summarise
    from reaemb_bench.reporting import markdown, terminal
    from reaemb_bench.reporting.results import lists_table, results_table

    recipe = plans[0].recipe
    only = len(by_plan[0]) == 1
    named = {recipe.name if only else step: [each[step] for each in by_plan] for step in by_plan[0]}
    floors = fetch(plans[0], results, Floors)
    table = results_table(
        recipe.title,
        named,
        floors,
        plans[0].leaks,
        sampled=_sampled(plans[0], results),
        embedder_seed=recipe.embedder_seed,
    )
    table = expected.noted(table, len(next(iter(by_plan[0].values())).users), facts_of(plans[0], results, Corpus))
    lists = lists_table(named, floors)
    tables = [table] if lists is None else [table, lists]
    for each_table in tables:
        screen.print(terminal.render(each_table))
    for ranks_by_step, tracker in zip(by_plan, trackers, strict=True):
        if tracker is None:
            continue
        for step, ranks in ranks_by_step.items():
            tracker.step_results(step, summarise(ranks))
        shown = "\n".join(markdown.render(each_table) for each_table in tables)
        tracker.results(summarise(list(ranks_by_step.values())[-1]), shown)


def _sampled(planned: Plan, results: Store) -> int | None:
    """How many candidates were stored for each user, where that is in the store."""
    job = planned.job_of(Holdout)
    # Where all that depends on it is cached, the data step's own result may be gone.
    if job is None or not results.has(job.key):
        return None
    holdout = fetch(planned, results, Holdout)
    return int(holdout.candidates.shape[1]) if holdout is not None else None
