"""`reaemb-bench ablate`: variants of one recipe in one store, then how far each stands from it."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reaemb_bench.ablation.reading import Ablation, Asked, read_ablation
from reaemb_bench.ablation.variants import Variant
from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    CachePlace,
    Deterministic,
    Device,
    LogModels,
    MicroBatch,
    MlflowPlace,
    Precision,
    StorePlace,
    Threads,
    console,
    limit_threads,
    machine_from,
)
from reaemb_bench.cli.running import Counts, executed, group_results
from reaemb_bench.cli.tables import tables_of
from reaemb_bench.errors import UserError, reason_of
from reaemb_bench.machine import Machine
from reaemb_bench.pipeline import needed_jobs
from reaemb_bench.reporting import terminal
from reaemb_bench.reporting.export import check_ending, write_tables
from reaemb_bench.runs import Group, Run
from reaemb_bench.store import Store

_FAILED = 1

Place = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A recipe to vary, or a TOML file that names a recipe and variants of it."),
]
Drops = Annotated[
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
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="STEP.SETTING=VALUE", help="Change the recipe itself, and so all variants; may be repeated."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write the tables there too; the ending says the format.")]


def ablate(
    recipe: Place = DEFAULT_RECIPE,
    drops: Drops = None,
    swaps: Swaps = None,
    each: Each = False,
    only: Only = None,
    base: Base = None,
    sets: Sets = None,
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
    from reaemb_bench.ablation.report import ablation_tables, unlike

    screen, results = console(), Store(machine.store)
    begun, counts = time.monotonic(), Counts()
    _announce(ablation, results, screen)
    runs, reasons = _executed(ablation, machine, screen, counts)
    finished = {variant.name: variant for variant in ablation.variants if variant.name not in reasons}
    reasons |= unlike(ablation, results, finished)
    tables = ablation_tables(ablation, results, reasons)
    for table in tables:
        screen.print()
        screen.print(terminal.render(table))
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
