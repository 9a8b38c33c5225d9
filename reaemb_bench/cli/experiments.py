"""`reaemb-bench ablate`: variants of one recipe in one store, then how far each stands from it."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

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
from reaemb_bench.core.errors import RecipeError, UserError, reason_of
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import needed_jobs
from reaemb_bench.core.recipe import load
from reaemb_bench.core.runs import Group, Run
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.ablate import Ablation, Asked, Variant, read_ablation
from reaemb_bench.experiments.bench import remember_cells
from reaemb_bench.experiments.pool import in_processes, on_ray
from reaemb_bench.experiments.running import Counts, executed, group_results
from reaemb_bench.experiments.space import CURVE, PrunerName, SamplerName, read_search, twin
from reaemb_bench.experiments.suite import Grid, Task, grid, judge, read_suite
from reaemb_bench.experiments.sweep import Sweep, sweep_of
from reaemb_bench.report import render as terminal
from reaemb_bench.report.recipe_tables import tables_of
from reaemb_bench.report.render import check_ending, write_tables
from reaemb_bench.tracking.terminal import in_words

_FAILED = 1

Place = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A recipe to vary, or a TOML file that names a recipe and variants of it."),
]
VariantDrops = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        metavar="STEP[.PART]",
        help="A variant without this; commas divide what goes together (crrl,llm.reasoner); may be repeated.",
    ),
]
Swaps = Annotated[
    list[str] | None,
    typer.Option(
        "--swap", metavar="STEP.SETTING=VALUE", help="A variant in which this one setting differs; may be repeated."
    ),
]
Each = Annotated[
    bool,
    typer.Option("--each", help="Beside the others, a variant without each step that the recipe can do without."),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Of the file's variants, this one; may be repeated."),
]
Base = Annotated[str | None, typer.Option("--base", metavar="RECIPE", help="Vary this recipe, not the file's.")]
BaseSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="STEP.SETTING=VALUE", help="Change the recipe itself, and so all variants; may be repeated."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write the tables there too; the ending says the format.")]


def ablate(
    recipe: Place = DEFAULT_RECIPE,
    drops: VariantDrops = None,
    swaps: Swaps = None,
    each: Each = False,
    only: Only = None,
    base: Base = None,
    sets: BaseSets = None,
    out: Out = None,
    device: Device = "auto",
    precision: Precision = "auto",
    micro_batch: MicroBatch = None,
    threads: Threads = None,
    deterministic: Deterministic = False,
    store: StorePlace = None,
    cache: CachePlace = None,
    mlflow: MlflowPlace = None,
    log_models: LogModels = False,
) -> None:
    """Run a recipe and variants of it in one store, then show each variant's difference from the recipe.

    Every --drop and every --swap is a variant of its own: an ablation changes one thing at a time. What a variant does
    not change is not computed again. A variant that fails is missing, with the reason below, and the code is 1; the
    others go on. The same command computes what is missing.
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
    if out is not None:
        check_ending(out)
    limit_threads(machine)
    asked = Asked(tuple(drops or ()), tuple(swaps or ()), each, tuple(only or ()), base, tuple(sets or ()))
    ablation = read_ablation(recipe, asked)
    if _run_and_report(ablation, machine, out):
        raise typer.Exit(_FAILED)


def _run_and_report(ablation: Ablation, machine: Machine, out: Path | None) -> dict[str, str]:
    """Why variants are missing, by name."""
    from reaemb_bench.experiments.ablate import ablation_tables, unlike

    screen, results = console(), Store(machine.store)
    begun, counts = time.monotonic(), Counts()
    _announce(ablation, results, screen)
    runs, reasons = _executed(ablation, machine, screen, counts)
    finished = {variant.name: variant for variant in ablation.variants if variant.name not in reasons}
    reasons |= unlike(ablation, results, finished)
    tables = ablation_tables(ablation, results, reasons)
    for table in tables:
        screen.print()
        screen.print(terminal.render_terminal(table))
    group_results(runs, tables, machine, screen)
    screen.print(counts.in_words(time.monotonic() - begun), highlight=False)
    if out is not None:
        write_tables(out, ablation.title, tables)
        screen.print(f"written to {out}", markup=False, highlight=False, soft_wrap=True)
    return reasons


def _announce(ablation: Ablation, results: Store, screen: Console) -> None:
    plans = [planned for variant in (ablation.base, *ablation.variants) for planned in variant.plans]
    steps = {job.key for planned in plans for job in planned.jobs}
    needed = {key for planned in plans for key in needed_jobs(planned, results)}
    count = len(ablation.variants)
    screen.print(
        f"{ablation.base.name} and {count} variant{'s' if count != 1 else ''}: "
        f"{len(needed)} of {len(steps)} steps to compute",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _executed(
    ablation: Ablation, machine: Machine, screen: Console, counts: Counts
) -> tuple[list[Run], dict[str, str]]:
    """Execute the base, then each variant; the records of what finished, and why the others did not, by name."""
    runs, reasons = [_one(ablation.base, ablation, machine, screen, counts)], {}
    for place, variant in enumerate(ablation.variants, 1):
        screen.print(
            f"\n{variant.name} [{place}/{len(ablation.variants)}]",
            style="bold",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        try:
            runs.append(_one(variant, ablation, machine, screen, counts))
        except Exception as error:  # noqa: BLE001 - one variant's failure must not cost the others their results
            if not isinstance(error, UserError):
                traceback.print_exc()
            reasons[variant.name] = reason_of(error)
            screen.print(f"failed: {reasons[variant.name]}", markup=False, highlight=False, soft_wrap=True)
    return runs, reasons


def _one(variant: Variant, ablation: Ablation, machine: Machine, screen: Console, counts: Counts) -> Run:
    group = Group("ablation", ablation.base.name)
    with executed(variant.plans, machine, screen, counts, group) as tracking:
        if machine.mlflow:
            tracking.show(tables_of(variant.plans, Store(machine.store)))
    return tracking.run


# `reaemb-bench bench`: every method of a suite on all its data, recommenders and seeds, then one table each.


_FAILED_BENCH = 1

Executor = Literal["processes", "ray"]

SuitePlace = Annotated[str, typer.Argument(metavar="SUITE", help="A TOML file, or the name of a shipped suite.")]
SuiteSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PART.SETTING=VALUE", help="Change the suite, such as seeds=[1]; may be repeated."),
]
Out_of_bench = Annotated[
    Path | None, typer.Option("--out", help="Write the tables there too; .md, .tex, .html, .json, .csv.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="How many cells are computed at once.")]
ExecutorName = Annotated[Executor, typer.Option("--executor", help="Processes of this machine, or a Ray cluster.")]


def bench(
    suite: SuitePlace,
    sets: SuiteSets = None,
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

    from reaemb_bench.experiments.bench import suite_tables
    from reaemb_bench.report import render as terminal

    tables = suite_tables(cells, Store(machine.store), reasons)
    screen.print(f"\n{read.title}", style="bold", markup=False, highlight=False)
    for table in tables:
        screen.print()
        screen.print(terminal.render_terminal(table))
    if out is not None:
        write_tables(out, read.title, tables)
        screen.print(f"\nwritten to {out}", markup=False, highlight=False, soft_wrap=True)
    if reasons:
        raise typer.Exit(_FAILED_BENCH)


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


# `reaemb-bench sweep`: search for settings by the validation targets; the test targets stay closed.


_FAILED_SWEEP = 1

SpacePlace = Annotated[
    Path | None,
    typer.Option("--space", help="TOML file of the search space; by default NAME.search.toml beside the recipe."),
]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Finished trials that the study is to have.")]
Jobs_of_sweep = Annotated[int, typer.Option("--jobs", min=1, help="Processes on this machine.")]
Sampler = Annotated[SamplerName | None, typer.Option("--sampler", help="Who proposes settings.")]
Pruner = Annotated[PrunerName | None, typer.Option("--pruner", help="Who stops trials by their validation curve.")]
Objectives = Annotated[
    list[str] | None,
    typer.Option("--objective", help=f"{CURVE}, {CURVE}/tail, minutes, ...; repeat it for several."),
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", help="A database URL, or a journal file; by default STORE/sweeps/NAME.journal."),
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the study; by default the recipe's.")]
Out_of_sweep = Annotated[
    Path | None, typer.Option("--out", help="The best recipe; by default STORE/sweeps/NAME/best.toml.")
]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.0, help="Seconds after which no further trial begins.")
]


def sweep(
    recipe: RecipePlace = DEFAULT_RECIPE,
    space: SpacePlace = None,
    trials: Trials = None,
    jobs: Jobs = 1,
    sampler: Sampler = None,
    pruner: Pruner = None,
    objective: Objectives = None,
    storage: Storage = None,
    name: Name = None,
    out: Out = None,
    timeout: Timeout = None,
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
) -> None:
    """Search for settings of a recipe: trials run up to the recommender and are judged by validation targets.

    The same command goes on where it was, and commands with the same name and storage share one study.
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
    )
    limit_threads(machine)
    given = {"trials": trials, "sampler": sampler, "pruner": pruner, "objectives": objective}
    file = space or twin(recipe)
    raw, settings = read_search(file, {key: value for key, value in given.items() if value is not None})
    if pruner not in (None, "none") and not settings.prunes:
        raise UserError(f"--pruner {pruner}: only {CURVE} alone is pruned by; say --pruner none")
    read = load(recipe, sets or (), drops or ())
    try:
        made = sweep_of(read, raw, settings, machine, name, storage)
    except RecipeError as error:
        raise UserError(f"{file}, {error}") from None
    _search(made, jobs, timeout)
    _tell(made, out, console())


def _search(made: Sweep, jobs: int, timeout: float | None) -> None:
    from reaemb_bench.experiments.sweep import in_processes, open_study, planned_trials, sampler, shown_storage, work

    # Before anything runs: what cannot be reached or done costs no trial.
    sampler(made.settings, 0)
    trials = planned_trials(made)
    open_study(made)
    screen = console()

    def say(line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"study '{made.name}' in {shown_storage(made.storage)}: until {trials} trials are finished")
    until = None if timeout is None else time.time() + timeout
    if jobs == 1:
        work(made, say, until)
    else:
        in_processes(made, jobs, say, until)


def _tell(made: Sweep, out: Path | None, screen: Console) -> None:
    from reaemb_bench.experiments import sweep_report as report
    from reaemb_bench.experiments.sweep import open_study, shown_storage
    from reaemb_bench.experiments.sweep_report import page

    found = report.found_in(open_study(made))

    def say(line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    screen.print()
    screen.print(report.trials_table(found, made))
    for line in report.notes(found, made):
        say(line)
    if found.best is None:
        say("no trial is complete, so there is no best recipe")
        raise typer.Exit(_FAILED_SWEEP)
    say(report.curve_line(report.best_so_far(found), made.settings.objectives[0]))
    if shares := report.importance(found):
        screen.print()
        screen.print(report.importance_table(shares))
    else:
        least, complete = report.LEAST_FOR_IMPORTANCE, len(found.complete)
        say(f"importance of settings: takes {least} complete trials, there are {complete}")
    best = out or made.folder / "best.toml"
    recipe = made.whole_recipe(made.searched().named(found.best.params))
    plots = made.folder / "plots.html"
    _write(best, recipe.toml())
    _write(plots, page(found, made))
    say(f"\nplots: {plots}")
    say(f"more of them: optuna-dashboard {shown_storage(made.storage)}")
    say(f"best recipe, trial {found.best.number}: {best}")
    say(f"what the test targets say of it: reaemb-bench run {best}")


def _write(file: Path, text: str) -> None:
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror})") from None
