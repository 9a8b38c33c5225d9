"""`reaemb-bench audit`: whether held-out data reach what a recipe learns, and which paper variants it uses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from typer import Option

from reaemb_bench.cli.options import DEFAULT_RECIPE, Drops, RecipeName, Sets, machine_options
from reaemb_bench.cli.screen import console, plain_table, say, show
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import Recipe, load
from reaemb_bench.core.store import Store

if TYPE_CHECKING:
    from reaemb_bench.core.plan import Plan
    from reaemb_bench.evaluation.leak_test import LeakReport

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
    from reaemb_bench.evaluation.leak_test import step_access
    from reaemb_bench.evaluation.paper_variants import variants_in

    loaded = load(recipe, sets or (), drops or ())
    steps = step_access(loaded)
    say(f"Audit of {loaded.title}", style="bold")
    rows = ("validation rows", "test rows")
    table = plain_table("step", "reads", "makes", *rows, "remark", right=rows)
    for step in steps:
        reads, makes = (", ".join(part.__name__ for part in parts) for parts in (step.reads, step.makes))
        shares = ["100 %" if step.divides or step.input_level >= access else "0 %" for access in (1, 2)]
        remarks = (
            (step.undeclared, f'reads more than it declares (data_access = "{step.step.data_access}")'),
            (step.divides, "divides the data"),
            (step.step.leaks, "declared leak: looks at held-out rows on purpose"),
            (step.is_judge, "judge"),
            (step.via, f"and what {', '.join(step.via)} made of held-out rows"),
        )
        remark = next((words for applies, words in remarks if applies), "")
        table.add_row(*map(escape, (step.name, reads, makes, *shares, remark)))
    show(table, "")

    if uses := variants_in(loaded):
        headings = ("paper variant", "where")
        table = plain_table(*headings, "choice", "what it is known to do", no_wrap=headings)
        for use in uses:
            choice = use.variant.choice or use.variant.component
            table.add_row(*map(escape, (use.variant.defect, use.path, choice, use.variant.effect)))
        show(table, "")
    else:
        say("no variant of the paper's released code is in use")

    if undeclared := [step.name for step in steps if step.undeclared]:
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


def _examine(recipe: Recipe, full: bool, machine: Machine) -> LeakReport:
    """Run the leak test in a temporary folder inside the store."""
    from reaemb_bench.core.execute import execute
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
    steps: dict[str, list[str]] = {}
    leaks = []
    for verdict in leak_report.verdicts:
        steps.setdefault(verdict.outcome, []).append(verdict.step)
        of_source = f" of {escape(verdict.source)}" if verdict.source else ""
        outcome = {
            "identical": "[green]nothing[/]",
            "leak": "[red]LEAK: its bits[/]",
            "follows": f"its bits, with those{of_source}",
            "declared": f"declared leak{of_source}: not compared",
            "unrepeatable": "[yellow]its bits, but they also change on the same rows: nothing is known[/]",
        }[verdict.outcome]
        parts = verdict.parts if verdict.outcome != "declared" else ""
        table.add_row(escape(verdict.step), verdict.artifact, parts, outcome)
        if verdict.outcome == "leak":
            leaks.append(f"LEAK: {verdict.artifact} of {verdict.step} depends on {verdict.parts} items")
    show("", table)
    counts = (f"{count:,} of {total:,} {part} targets" for part, (count, total) in leak_report.exchanged.items())
    say(f"exchanged among users: {' and '.join(counts)}; {_BEYOND}")
    for line in leaks:
        say(line)
    leaking, unrepeatable, declared = (
        ", ".join(dict.fromkeys(steps.get(outcome, ()))) for outcome in ("leak", "unrepeatable", "declared")
    )
    if leaking:
        say(f"verdict: LEAK in {leaking}")
    elif unrepeatable:
        say(f"verdict: undecided, results of {unrepeatable} differ from run to run; on --device cpu they should not")
    else:
        say(f"verdict: no leak found{f' beyond the declared ones ({declared})' if declared else ''}")
