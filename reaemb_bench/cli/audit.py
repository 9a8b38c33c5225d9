"""`reaemb-bench audit`: whether held-out data reach what a recipe learns, and which paper variants it uses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from typer import Option

from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    Drops,
    RecipeName,
    Sets,
    console,
    machine_options,
    plain_table,
    say,
    show,
)
from reaemb_bench.core.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.plan import Plan
    from reaemb_bench.core.recipe import Recipe
    from reaemb_bench.core.store import Store
    from reaemb_bench.evaluation.leak_test import LeakReport, StepAccess, Verdict

_LEAK_FOUND = 1
_BEYOND = "beyond this test: components that open the raw files themselves, or keep the first rows that they ever saw"


@machine_options("device", "precision", "micro_batch", "threads", "store", "cache")
def audit(
    machine: Machine,
    recipe: RecipeName = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    dry: Annotated[bool, Option("--dry", help="Only read the recipe; compute nothing.")] = False,
    full: Annotated[bool, Option("--full", help="Keep all settings `steps` and `epochs` as they are.")] = False,
) -> None:
    """Show what each step reads of the held-out rows, test for leaks, and name the paper variants in use.

    The steps before the judges run three times in a temporary folder inside the store, on the first seed: unchanged,
    with all held-out items exchanged among users, and with only test items exchanged. Exits with code 1 if something
    changes that may not.

    Examples:
    reaemb-bench audit quickstart --dry
    reaemb-bench audit my_recipe.toml
    """
    from reaemb_bench.core.plan import plan
    from reaemb_bench.core.recipe import load
    from reaemb_bench.evaluation.leak_test import step_access

    loaded = load(recipe, sets or (), drops or ())
    steps = step_access(loaded)
    say(f"Audit of {loaded.title}", style="bold")
    show(_readings_table(steps), "")
    _print_paper_variants(loaded)
    if undeclared := [reading.name for reading in steps if reading.undeclared]:
        say(f"verdict: LEAK, {', '.join(undeclared)} would read more than declared; `run` refuses such a recipe")
        raise typer.Exit(_LEAK_FOUND)
    # Reports what is missing or forbidden before anything runs.
    plan(loaded, loaded.seeds[0])
    if dry:
        say("verdict: no step reads more than it declares; without --dry the leak test runs too")
        return
    leak_report = _examine(loaded, full, machine)
    _print_leak_report(leak_report)
    if not leak_report.passed:
        raise typer.Exit(_LEAK_FOUND)


def _readings_table(steps: tuple[StepAccess, ...]) -> Table:
    table = plain_table(
        "step", "reads", "makes", "validation rows", "test rows", "remark", right=("validation rows", "test rows")
    )
    for reading in steps:
        reads, makes = (", ".join(part.__name__ for part in parts) for parts in (reading.reads, reading.makes))
        shares = ["100 %" if reading.divides or reading.input_level >= access else "0 %" for access in (1, 2)]
        remark = ""
        if reading.undeclared:
            remark = f'reads more than it declares (data_access = "{reading.step.data_access}")'
        elif reading.divides:
            remark = "divides the data"
        elif reading.step.leaks:
            remark = "declared leak: looks at held-out rows on purpose"
        elif reading.is_judge:
            remark = "judge"
        elif reading.via:
            remark = f"and what {', '.join(reading.via)} made of held-out rows"
        table.add_row(*(escape(cell) for cell in (reading.name, reads, makes, *shares, remark)))
    return table


def _print_paper_variants(recipe: Recipe) -> None:
    from reaemb_bench.evaluation.paper_variants import variants_in

    uses = variants_in(recipe)
    if not uses:
        say("no variant of the paper's released code is in use")
        return
    table = plain_table(
        "paper variant", "where", "choice", "what it is known to do", no_wrap=("paper variant", "where")
    )
    for use in uses:
        choice = use.variant.choice or use.variant.component
        table.add_row(*(escape(cell) for cell in (use.variant.defect, use.path, choice, use.variant.effect)))
    show(table, "")


def _examine(recipe: Recipe, full: bool, machine: Machine) -> LeakReport:
    """Run the leak test in a temporary folder inside the store."""
    from reaemb_bench.core.execute import execute
    from reaemb_bench.core.store import Store
    from reaemb_bench.evaluation.leak_test import find_leaks, shorten
    from reaemb_bench.tracking.terminal import watching

    if not full:
        recipe, cuts = shorten(recipe)
        if cuts:
            say(f"shortened for the audit (--full prevents it): {', '.join(cuts)}")

    def compute(planned: Plan, store: Store) -> None:
        with watching(planned, console()) as watch:
            execute(planned, store, machine, watch)

    try:
        machine.store.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="audit-", dir=machine.store)
    except OSError as error:
        raise UserError(
            f"the store folder {machine.store} cannot be written ({error.strerror}); choose another with --store"
        ) from None
    with folder as name:
        return find_leaks(recipe, recipe.seeds[0], Store(Path(name)), compute)


def _print_leak_report(leak_report: LeakReport) -> None:
    table = plain_table("step", "artefact", "exchanged", "what changed")
    for verdict in leak_report.verdicts:
        parts = verdict.parts if verdict.outcome != "declared" else ""
        table.add_row(escape(verdict.step), verdict.artifact, parts, _outcome(verdict))
    show("", table)
    counts = (f"{count:,} of {total:,} {part} targets" for part, (count, total) in leak_report.exchanged.items())
    say(f"exchanged among users: {' and '.join(counts)}; {_BEYOND}")
    steps: dict[str, list[str]] = {}
    for verdict in leak_report.verdicts:
        steps.setdefault(verdict.outcome, []).append(verdict.step)
        if verdict.outcome == "leak":
            say(f"LEAK: {verdict.artifact} of {verdict.step} depends on {verdict.parts} items")
    if "leak" in steps:
        say(f"verdict: LEAK in {', '.join(dict.fromkeys(steps['leak']))}")
    elif "unrepeatable" in steps:
        names = ", ".join(dict.fromkeys(steps["unrepeatable"]))
        say(f"verdict: undecided, results of {names} differ from run to run; on --device cpu they should not")
    else:
        declared = ", ".join(dict.fromkeys(steps.get("declared", [])))
        say(f"verdict: no leak found{f' beyond the declared ones ({declared})' if declared else ''}")


def _outcome(verdict: Verdict) -> str:
    of_source = f" of {escape(verdict.source)}" if verdict.source else ""
    return {
        "identical": "[green]nothing[/]",
        "leak": "[red]LEAK: its bits[/]",
        "follows": f"its bits, with those{of_source}",
        "declared": f"declared leak{of_source}: not compared",
        "unrepeatable": "[yellow]its bits, but they also change on the same rows: nothing is known[/]",
    }[verdict.outcome]
