"""`reaemb-bench bench`: every method of a suite on all its data, recommenders and seeds, then one table each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from reaemb_bench.bench.grid import Grid, Task, grid, judge
from reaemb_bench.bench.on_ray import on_ray
from reaemb_bench.bench.processes import in_processes
from reaemb_bench.bench.record import remember_cells
from reaemb_bench.bench.suite import read_suite
from reaemb_bench.cli.options import (
    CachePlace,
    Deterministic,
    Device,
    MicroBatch,
    Precision,
    StorePlace,
    Threads,
    console,
    machine_from,
)
from reaemb_bench.machine import Machine
from reaemb_bench.reporting.export import check_ending, write_tables
from reaemb_bench.runs import Group
from reaemb_bench.store import Store
from reaemb_bench.tracking.terminal import in_words

_FAILED = 1

Executor = Literal["processes", "ray"]

SuitePlace = Annotated[str, typer.Argument(metavar="SUITE", help="A TOML file, or the name of a shipped suite.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PART.SETTING=VALUE", help="Change the suite, such as seeds=[1]; may be repeated."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write the tables there too; .md, .tex, .html, .json, .csv.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="How many cells are computed at once.")]
ExecutorName = Annotated[Executor, typer.Option("--executor", help="Processes of this machine, or a Ray cluster.")]


def bench(
    suite: SuitePlace,
    sets: Sets = None,
    jobs: Jobs = 1,
    executor: ExecutorName = "processes",
    out: Out = None,
    device: Device = "auto",
    precision: Precision = "auto",
    micro_batch: MicroBatch = None,
    threads: Threads = None,
    deterministic: Deterministic = False,
    store: StorePlace = None,
    cache: CachePlace = None,
) -> None:
    """Run a suite: methods by data sets by recommenders by seeds, all in one store, then a table each.

    A cell that fails is missing in its table, with the reason below, and the code is 1; the others go on. The same
    command computes what is missing.
    """
    machine = machine_from(
        device=device,
        precision=precision,
        micro_batch=micro_batch,
        threads=threads,
        deterministic=deterministic,
        store=store,
        cache=cache,
        mlflow="",
    )
    if out is not None:
        check_ending(out)
    read = read_suite(suite, sets or ())
    cells = grid(read)
    screen = console()
    group = Group("bench", Path(suite).stem)
    reasons = _computed(cells, machine, jobs, executor, screen, group)
    remember_cells(cells, Store(machine.store), group)

    from reaemb_bench.bench.report import suite_tables
    from reaemb_bench.reporting import terminal

    tables = suite_tables(cells, Store(machine.store), reasons)
    screen.print(f"\n{read.title}", style="bold", markup=False, highlight=False)
    for table in tables:
        screen.print()
        screen.print(terminal.render(table))
    if out is not None:
        write_tables(out, read.title, tables)
        screen.print(f"\nwritten to {out}", markup=False, highlight=False, soft_wrap=True)
    if reasons:
        raise typer.Exit(_FAILED)


def _computed(
    cells: Grid, machine: Machine, jobs: int, executor: Executor, screen: Console, group: Group
) -> dict[str, str]:
    """Compute what is missing; why a cell failed, by the key of its judge's result."""
    results, tasks = Store(machine.store), cells.tasks()
    missing = [task for task in tasks if not results.has(judge(task.planned).key)]
    begun = time.monotonic()

    def say(task: Task, line: str) -> None:
        screen.print(f"{task.label}: {line}", markup=False, highlight=False, soft_wrap=True)

    screen.print(f"{len(missing)} of {len(tasks)} cells to compute", highlight=False)
    execute = on_ray if executor == "ray" else in_processes
    reasons = {}
    for number, (task, answer) in enumerate(execute(missing, machine, jobs, say), 1):
        if answer.reason:
            reasons[judge(task.planned).key] = answer.reason
        else:
            # At once, for a suite that is interrupted goes on another day.
            remember_cells(cells, results, group, task.planned)
        ended = f"failed, {answer.reason}" if answer.reason else "done"
        say(task, f"{ended} [{number}/{len(missing)}, {in_words(time.monotonic() - begun)}]")
    return reasons
