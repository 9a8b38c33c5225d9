"""Verbs that run many recipes: `ablate` (variants of one), `bench` (a grid of methods) and `sweep` (a search)."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from typer import Argument, Option

from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    Drops,
    Limit,
    RecipeName,
    Sets,
    TablesFile,
    Wide,
    Words,
    compute_options,
    machine_options,
)
from reaemb_bench.cli.screen import console, say, show, show_tables, some_of, write_file
from reaemb_bench.core.errors import RecipeError, UserError, reason_of
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load, locate, name_of
from reaemb_bench.core.store import Store

if TYPE_CHECKING:
    from reaemb_bench.core.runs import Run
    from reaemb_bench.experiments.variants import Variant


Executor = Literal["processes", "ray"]
_WIDTH_IN_MLFLOW = 160
SamplerName = Literal["tpe", "gp", "cmaes", "random", "grid"]
PrunerName = Literal["median", "hyperband", "none"]


@compute_options("mlflow", "log_models")
def ablate(
    machine: Machine,
    recipe: Annotated[str, Argument(help="A recipe to vary, or a TOML file that names variants.")] = DEFAULT_RECIPE,
    drops: Annotated[
        Words, Option("--drop", metavar="STEP[.PART]", help="A variant without it; a,b drops both.")
    ] = None,
    swaps: Annotated[Words, Option("--swap", metavar="STEP.SETTING=VALUE", help="A variant with this setting.")] = None,
    each_step: Annotated[bool, Option("--each", help="Also a variant without each step that can go.")] = False,
    only: Annotated[Words, Option(metavar="NAME", help="Of the file's variants, only this one.")] = None,
    base: Annotated[str | None, Option(metavar="RECIPE", help="Vary this recipe, not the file's.")] = None,
    sets: Annotated[Words, Option("--set", metavar="STEP.SETTING=VALUE", help="Change recipe and variants.")] = None,
    limit: Limit = False,
    out: TablesFile = None,
    wide: Wide = None,
) -> None:
    """Run a recipe and variants of it in one store, then show how each variant differs from the recipe.

    Every --drop and every --swap is a variant of its own: an ablation changes one thing at a time. What a variant does
    not change is not computed again. A variant that fails is missing, with the reason below the table, the others
    continue, and the exit code is 1. The same command computes what is missing.

    Examples:
    reaemb-bench ablate quickstart --drop crrl --swap train.objective=bce
    reaemb-bench ablate quickstart --each --out table.tex
    reaemb-bench ablate ablations_base --only "without CRRL"
    """
    from reaemb_bench.core.plan import needed_jobs
    from reaemb_bench.core.runs import Group
    from reaemb_bench.experiments.ablate import ablation_tables, limited_ablation, read_ablation, unlike
    from reaemb_bench.experiments.forecast import check_ready
    from reaemb_bench.experiments.running import Counts, executed, group_results
    from reaemb_bench.experiments.variants import reached
    from reaemb_bench.report.recipe_tables import tables_of
    from reaemb_bench.report.results import K
    from reaemb_bench.tracking.terminal import Board, Ended

    store, start, counts = Store(machine.store), time.monotonic(), Counts()
    lists = (drops or (), swaps or (), only or (), sets or ())
    ablation = read_ablation(recipe, *lists, each_step=each_step, base=base)
    if limit:
        ablation = limited_ablation(ablation)
    variants, count = ablation.variants, len(ablation.variants)
    for variant in (ablation.base, *variants):
        check_ready(variant.plans, store, machine, f"{variant.name}: ")
    plans = [planned for variant in (ablation.base, *variants) for planned in variant.plans]
    steps = {job.key for planned in plans for job in planned.jobs}
    needed = {key for planned in plans for key in needed_jobs(planned, store)}
    words, group = f"{count} variant{'s' if count != 1 else ''}", Group("ablation", ablation.base.name)
    say(f"{ablation.base.name} and {words}: {len(needed)} of {len(steps)} steps to compute")

    names = [variant.name for variant in (ablation.base, *variants)]
    board = Board(f"ablation of {ablation.base.name}", names, console(), f"NDCG@{K}")

    def run(variant: Variant) -> Run:
        if board.live:
            board(f"{variant.name}: under way")
        with executed(variant.plans, machine, console(), counts, group, keep=not board.live) as tracking:
            if machine.mlflow:
                tracking.show(tables_of(variant.plans, store))
        if board.live:
            board(Ended.of(f"{variant.name}: ", reached(variant.plans, store)))
        return tracking.run

    with board.shown():
        runs, reasons = [run(ablation.base)], {}
        for number, variant in enumerate(variants, 1):
            if not board.live:
                say(f"\n{variant.name} [{number}/{count}]", style="bold")
            try:
                runs.append(run(variant))
            except Exception as error:  # noqa: BLE001 - one variant's failure must not cost the others their results
                if not isinstance(error, UserError):
                    traceback.print_exc()
                reasons[variant.name] = reason_of(error)
                failure = f"failed: {reasons[variant.name]}"
                board(Ended.of(f"{variant.name}: {failure}", failed=True)) if board.live else say(failure)
    reasons |= unlike(ablation, store, [variant for variant in variants if variant.name not in reasons])
    tables = ablation_tables(ablation, store, reasons)
    show_tables(ablation.title, tables, out, wide)
    group_results(group, runs, tables, machine, console())
    say(counts.in_words(time.monotonic() - start))
    if reasons:
        raise typer.Exit(1)


@compute_options()
def bench(
    machine: Machine,
    suite: Annotated[str, Argument(metavar="SUITE", help="A TOML file, or the name of a shipped suite.")],
    sets: Annotated[Words, Option("--set", metavar="PART.SETTING=VALUE", help="Change the suite.")] = None,
    jobs: Annotated[int, Option(min=1, help="How many cells are computed at once.")] = 1,
    executor: Annotated[Executor, Option(help="Processes of this machine, or a Ray cluster.")] = "processes",
    partial: Annotated[
        bool, Option("--partial", help="Compute the cells that can run though others cannot; tables name these.")
    ] = False,
    limit: Limit = False,
    out: TablesFile = None,
    wide: Wide = None,
) -> None:
    """Run a suite: methods by data sets by recommenders by seeds, all in one store, then print a table each.

    If a file, a package or memory is missing for a cell, nothing starts, and every such cell is named. A cell that
    fails later is missing in its table, with the reason below, the others continue, and the exit code is 1. The
    same command computes what is missing.

    Examples:
    reaemb-bench bench suites/quick --jobs 2
    reaemb-bench bench my_suite.toml --set "seeds=[1, 2, 3]" --out table.md
    """
    from reaemb_bench.core.runs import Group
    from reaemb_bench.experiments.bench import (
        compute_cells,
        grid,
        limited_grid,
        read_suite,
        remember_cells,
        suite_tables,
    )
    from reaemb_bench.experiments.forecast import why_not
    from reaemb_bench.experiments.variants import judge
    from reaemb_bench.report.results import K
    from reaemb_bench.tracking.terminal import Board

    loaded = read_suite(suite, sets or ())
    cells, store, group = grid(loaded), Store(machine.store), Group("bench", Path(suite).stem)
    if limit:
        cells = limited_grid(cells)
    reasons, by_reason = dict[str, str](), dict[str, list[str]]()
    for label, planned in cells.tasks():
        if obstacles := why_not(planned, store, machine):
            reasons[judge(planned).key] = reason = next(iter(obstacles.values()))
            by_reason.setdefault(reason, []).append(label)
    for reason, labels in by_reason.items():
        say(f"cannot run, {some_of(labels, len(cells.tasks()))}: {reason}")
    if reasons and not partial:
        raise UserError(
            f"{len(reasons)} of {len(cells.tasks())} cells cannot run, so nothing was started; mend what is named "
            "above, or say --partial to compute the others"
        )
    missing = [
        label
        for label, planned in cells.tasks()
        if judge(planned).key not in reasons and not store.has(judge(planned).key)
    ]
    with Board(loaded.title, missing, console(), f"NDCG@{K}").shown() as board:
        reasons |= compute_cells(cells, machine, jobs, executor, group, board, reasons)
    remember_cells(cells, store, group)
    tables = suite_tables(cells, store, reasons)
    say(f"\n{loaded.title}", style="bold")
    show_tables(loaded.title, tables, out, wide)
    if reasons:
        raise typer.Exit(1)


@machine_options("store")
def leaderboard(
    machine: Machine,
    suite: Annotated[str, Argument(metavar="SUITE", help="A TOML file, or the name of a shipped suite.")],
    sets: Annotated[Words, Option("--set", metavar="PART.SETTING=VALUE", help="Change the suite.")] = None,
    out: TablesFile = None,
    wide: Wide = None,
) -> None:
    """Show the embedders of a suite from best to worst, from what `bench` has computed, with what they cost.

    Embedders that a paired test does not tell apart share a group. `--out` writes one page, whose columns sort, or
    Markdown.

    Examples:
    reaemb-bench leaderboard suites/embedders --out leaderboard.html
    reaemb-bench leaderboard my_suite.toml --out leaderboard.md
    """
    from reaemb_bench.experiments.bench import grid, read_suite
    from reaemb_bench.experiments.leaderboard import leaderboard as tables_of_suite

    loaded = read_suite(suite, sets or ())
    show_tables(loaded.title, tables_of_suite(loaded.title, grid(loaded), Store(machine.store)), out, wide)
    say(f"to add yours: a line in `methods` of {locate(suite)}, then reaemb-bench bench {suite}")


@compute_options("mlflow")
def sweep(
    machine: Machine,
    recipe: RecipeName = DEFAULT_RECIPE,
    space: Annotated[Path | None, Option(help="TOML file of the search space; by default NAME.search.toml.")] = None,
    trials: Annotated[int | None, Option(min=1, help="Finished trials that the study is to have.")] = None,
    jobs: Annotated[int, Option(min=1, max=1024, help="Processes on this machine.")] = 1,
    sampler: Annotated[SamplerName | None, Option(help="Proposes settings.")] = None,
    pruner: Annotated[PrunerName | None, Option(help="Stops trials by their validation curve.")] = None,
    objective: Annotated[Words, Option(help="validation/ndcg@10, validation/ndcg@10/tail, minutes, ...")] = None,
    storage: Annotated[str | None, Option(help="A database URL or a journal file; by default in the store.")] = None,
    name: Annotated[str | None, Option(help="Name of the study; by default the recipe's.")] = None,
    out: Annotated[Path | None, Option(help="The best recipe; by default STORE/sweeps/NAME/best.toml.")] = None,
    timeout: Annotated[float | None, Option(min=0.0, help="Seconds after which no new trial starts.")] = None,
    sets: Sets = None,
    drops: Drops = None,
) -> None:
    """Search for settings of a recipe: trials run up to the recommender and are judged by validation targets.

    The same command continues a study, and commands with the same name and storage share one study.

    Examples:
    reaemb-bench sweep quickstart --trials 30 --jobs 2
    reaemb-bench sweep my_recipe.toml --space my_space.toml --sampler random
    """
    from reaemb_bench.core.runs import Group, history
    from reaemb_bench.experiments import sweep as studies
    from reaemb_bench.experiments import sweep_report as report
    from reaemb_bench.experiments.running import group_results
    from reaemb_bench.experiments.space import CURVE, read_search, twin
    from reaemb_bench.tracking.addresses import redacted
    from reaemb_bench.tracking.terminal import Board

    given = {"trials": trials, "sampler": sampler, "pruner": pruner, "objectives": objective}
    file = space or twin(recipe)
    raw, settings = read_search(file, {key: value for key, value in given.items() if value is not None})
    if pruner not in (None, "none") and not settings.prunes:
        raise UserError(f"--pruner {pruner}: only {CURVE} alone is pruned by; say --pruner none")
    try:
        loaded, study = load(recipe, sets or (), drops or ()), name or name_of(locate(recipe))
        search = studies.sweep_of(loaded, raw, settings, machine, study, storage)
    except RecipeError as error:
        raise UserError(f"{file}, {error}") from None
    first = search.settings.objectives[0]
    lowest = search.settings.directions[0] == "minimize"
    labels = [f"trial {number}" for number in range(search.trials)]
    with Board(f"sweep {search.name}", labels, console(), first, lowest=lowest).shown() as board:
        studies.search(search, jobs, board, timeout)

    results = report.results_of(search)
    table, group = report.trials_table(results), Group("trial", study)
    show("", table)
    screen = Console(width=_WIDTH_IN_MLFLOW)
    with screen.capture() as captured:
        screen.print(table)
    members = [run for run in history(Store(machine.store)) if group in run.groups]
    group_results(group, members, f"```\n{captured.get()}```", machine, console())
    for line in report.notes(results):
        say(line)
    if results.best is None:
        say("no trial is complete, so there is no best recipe")
        raise typer.Exit(1)
    say(report.course(results))
    shares = report.importance(results)
    if isinstance(shares, str):
        say(shares)
    else:
        show("", shares)
    best, plots = out or search.folder / "best.toml", search.folder / "plots.html"
    write_file(best, search.whole_recipe(search.searched.values_of(results.best.params)).toml(), "--out")
    write_file(plots, report.page(results), "--store")
    say(f"\nplots: {plots}")
    say(f"more of them: optuna-dashboard {redacted(search.storage)}")
    say(f"best recipe, trial {results.best.number}: {best}")
    say(f"what the test targets say of it: reaemb-bench run {best}")
