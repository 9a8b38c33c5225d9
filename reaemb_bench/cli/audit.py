"""`reaemb-bench audit`: whether held-out data reach what a recipe learns, and which paper variants it uses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    CachePlace,
    Device,
    Drops,
    MicroBatch,
    Precision,
    RecipePlace,
    Sets,
    StorePlace,
    Threads,
    console,
    limit_threads,
    machine_from,
)
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.plan import plan as plan_recipe
from reaemb_bench.core.recipe import Recipe, load
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.leak_test import StepAccess, shorten, step_access
from reaemb_bench.evaluation.paper_variants import variants_in
from reaemb_bench.tracking.terminal import watching

_FOUND = 1
_BEYOND = "beyond this test: components that open the raw files themselves, or keep the first rows that they ever saw"

Dry = Annotated[bool, typer.Option("--dry", help="Only read the recipe: compute nothing.")]
Full = Annotated[bool, typer.Option("--full", help="Leave all settings `steps` and `epochs` as they are.")]


def audit(
    recipe: RecipePlace = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    dry: Dry = False,
    full: Full = False,
    device: Device = "auto",
    precision: Precision = "auto",
    micro_batch: MicroBatch = None,
    threads: Threads = None,
    store: StorePlace = None,
    cache: CachePlace = None,
) -> None:
    """Show what each step reads of the held-out rows, test for leaks, and name the paper variants in use.

    The steps before the judges run three times in a temporary folder inside the store, on the first seed: as they
    are, with all held-out items exchanged among users, and with test items alone. Leaves with code 1 where something
    changes that may not.
    """
    machine = machine_from(
        device=device,
        precision=precision,
        micro_batch=micro_batch,
        threads=threads,
        store=store,
        cache=cache,
        mlflow="",
    )
    limit_threads(machine)
    read = load(recipe, sets or (), drops or ())
    steps = step_access(read)
    screen = console()
    screen.print(f"Audit of {read.title}", style="bold", markup=False, highlight=False)
    screen.print(_reading_table(steps))
    screen.print()
    _print_variants(read, screen)
    if excess := [each.name for each in steps if each.undeclared]:
        _say(screen, f"LEAK: {', '.join(excess)} would read more than declared; `run` refuses such a recipe")
        raise typer.Exit(_FOUND)
    # What is missing or forbidden is said before anything runs.
    plan_recipe(read, read.seeds[0])
    if dry:
        return
    if not _examined(read, full, machine, screen):
        raise typer.Exit(_FOUND)


def _reading_table(steps: tuple[StepAccess, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "reads", "makes", "validation rows", "test rows", "remark"):
        table.add_column(heading, justify="right" if heading.endswith("rows") else "left")
    for each in steps:
        reads, makes = (", ".join(part.__name__ for part in parts) for parts in (each.reads, each.makes))
        shares = ["100 %" if each.divides or each.input_level >= sight else "0 %" for sight in (1, 2)]
        table.add_row(*(escape(text) for text in (each.name, reads, makes, *shares, _remark(each))))
    return table


def _remark(each: StepAccess) -> str:
    if each.undeclared:
        return f'reads more than it declares (data_access = "{each.step.data_access}")'
    if each.divides:
        return "divides the data"
    if each.step.leaks:
        return "declared leak: looks at held-out rows on purpose"
    if each.is_judge:
        return "judge"
    if each.via:
        return f"and what {', '.join(each.via)} made of held-out rows"
    return ""


def _print_variants(read: Recipe, screen: Console) -> None:
    uses = variants_in(read)
    if not uses:
        _say(screen, "no variant of the paper's released code is in use")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("paper variant", "where", "choice", "what it is known to do"):
        table.add_column(heading, no_wrap=heading in ("paper variant", "where"))
    for use in uses:
        choice = use.variant.choice or use.variant.component
        table.add_row(*(escape(text) for text in (use.variant.defect, use.place, choice, use.variant.effect)))
    screen.print(table)
    screen.print()


def _examined(read: Recipe, full: bool, machine: Machine, screen: Console) -> bool:
    """Run the leak test and say what came of it; whether it found nothing."""
    from reaemb_bench.evaluation.leak_test import find_leaks

    if not full:
        read, cuts = shorten(read)
        if cuts:
            _say(screen, f"cut short for the audit (--full leaves them): {', '.join(cuts)}")

    def compute(planned: Plan, where: Store) -> None:
        with watching(planned, screen) as watch:
            execute(planned, where, machine, watch)

    with _temporary(machine.store) as folder:
        found = find_leaks(read, read.seeds[0], Store(Path(folder)), compute)
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "artefact", "exchanged", "what changed"):
        table.add_column(heading)
    for verdict in found.verdicts:
        said = {
            "identical": "[green]nothing[/]",
            "leak": "[red]LEAK: its bits[/]",
            "follows": f"its bits, with those of {escape(verdict.source)}",
            "declared": f"declared leak{f' of {escape(verdict.source)}' if verdict.source else ''}: not compared",
            "unrepeatable": "[yellow]its bits, but so they do on the same rows: nothing is known[/]",
        }[verdict.outcome]
        parts = verdict.parts if verdict.outcome != "declared" else ""
        table.add_row(escape(verdict.step), verdict.artifact, parts, said)
    screen.print()
    screen.print(table)
    moved = " and ".join(f"{count:,} of {total:,} {part} targets" for part, (count, total) in found.exchanged.items())
    _say(screen, f"exchanged among users: {moved}; {_BEYOND}")
    for verdict in found.verdicts:
        if verdict.outcome == "leak":
            _say(screen, f"LEAK: {verdict.artifact} of {verdict.step} depends on {verdict.parts} items")
    if any(verdict.outcome == "unrepeatable" for verdict in found.verdicts):
        _say(screen, "some results differ from run to run; on --device cpu they should not")
    return found.passed


def _temporary(store: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        store.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="audit-", dir=store)
    except OSError as error:
        raise UserError(
            f"the store folder {store} cannot be written ({error.strerror}); choose another with --store"
        ) from None


def _say(screen: Console, line: str) -> None:
    screen.print(line, markup=False, highlight=False)
