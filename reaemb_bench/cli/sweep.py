"""`reaemb-bench sweep`: search for settings by the validation targets; the test targets stay closed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    CachePlace,
    Deterministic,
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
from reaemb_bench.errors import RecipeError, UserError
from reaemb_bench.files import write_atomically
from reaemb_bench.recipe import load
from reaemb_bench.tuning.settings import CURVE, PrunerName, SamplerName, read_search, twin
from reaemb_bench.tuning.sweep import Sweep, sweep_of

_FAILED = 1

SpacePlace = Annotated[
    Path | None,
    typer.Option("--space", help="TOML file of the search space; by default NAME.search.toml beside the recipe."),
]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Finished trials that the study is to have.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes on this machine.")]
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
Out = Annotated[Path | None, typer.Option("--out", help="The best recipe; by default STORE/sweeps/NAME/best.toml.")]
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
    from reaemb_bench.tuning.processes import in_processes
    from reaemb_bench.tuning.study import open_study, sampler, shown
    from reaemb_bench.tuning.work import planned_trials, work

    # Before anything runs: what cannot be reached or done costs no trial.
    sampler(made.settings, 0)
    trials = planned_trials(made)
    open_study(made)
    screen = console()

    def say(line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"study '{made.name}' in {shown(made.storage)}: until {trials} trials are finished")
    until = None if timeout is None else time.time() + timeout
    if jobs == 1:
        work(made, say, until)
    else:
        in_processes(made, jobs, say, until)


def _tell(made: Sweep, out: Path | None, screen: Console) -> None:
    from reaemb_bench.tuning import report
    from reaemb_bench.tuning.page import page
    from reaemb_bench.tuning.study import open_study, shown

    found = report.found_in(open_study(made))

    def say(line: str) -> None:
        screen.print(line, markup=False, highlight=False, soft_wrap=True)

    screen.print()
    screen.print(report.trials_table(found, made))
    for line in report.notes(found, made):
        say(line)
    if found.best is None:
        say("no trial is complete, so there is no best recipe")
        raise typer.Exit(_FAILED)
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
    say(f"more of them: optuna-dashboard {shown(made.storage)}")
    say(f"best recipe, trial {found.best.number}: {best}")
    say(f"what the test targets say of it: reaemb-bench run {best}")


def _write(file: Path, text: str) -> None:
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror})") from None
