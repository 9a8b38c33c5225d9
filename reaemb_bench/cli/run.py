"""`reaemb-bench run`: compute what is missing, show the table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    CachePlace,
    Deterministic,
    Device,
    Drops,
    LogModels,
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
from reaemb_bench.core.distributed import is_first, process_group
from reaemb_bench.core.execute import execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.plan import plan as plan_recipe
from reaemb_bench.core.recipe import load, locate
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.running import Counts, executed
from reaemb_bench.report import render as terminal
from reaemb_bench.report.expected import Expected, changes, read_expected
from reaemb_bench.report.recipe_tables import tables_of

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
    deterministic: Deterministic = False,
    store: StorePlace = None,
    cache: CachePlace = None,
    mlflow: MlflowPlace = None,
    log_models: LogModels = False,
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
        deterministic=deterministic,
        store=store,
        cache=cache,
        mlflow=mlflow,
        log_models=log_models,
    )
    limit_threads(machine)
    read = load(recipe, sets or (), drops or ())
    # Before anything runs, so that a mistake in the file costs no results.
    expected = read_expected(locate(recipe), changes(sets or (), drops or ()))
    plans = [plan_recipe(read, seed) for seed in read.seeds]
    with process_group(machine, process_timeout) as here:
        if is_first():
            _run_and_report(plans, here, expected)
        else:
            for planned in plans:
                execute(planned, Store(here.store), here, lambda event: None)


def _run_and_report(plans: Sequence[Plan], machine: Machine, expected: Expected) -> None:
    screen = console()
    begun, counts = time.monotonic(), Counts()
    with executed(plans, machine, screen, counts) as tracking:
        tables = tables_of(plans, Store(machine.store), expected)
        for table in tables:
            screen.print(terminal.render_terminal(table))
        tracking.show(tables)
    screen.print(counts.in_words(time.monotonic() - begun), highlight=False)
