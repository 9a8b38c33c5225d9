"""`reaemb-bench diff`: what two runs have in common, and what not."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reaemb_bench.changes import reasons, results_paired, settings_changed, versions_changed
from reaemb_bench.cli.finding import existing_store, run_from
from reaemb_bench.cli.options import StorePlace, console, machine_from, say
from reaemb_bench.errors import UserError
from reaemb_bench.runs import Run
from reaemb_bench.store import Store

_KEY_CHARACTERS = 12

First = Annotated[str, typer.Argument(metavar="A", help="Id, its start, name of a run, or recipe.")]
Second = Annotated[str, typer.Argument(metavar="B", help="The other one.")]


def diff(first: First, second: Second, store: StorePlace = None) -> None:
    """Show which settings, results, versions and metrics differ between two runs."""
    results = existing_store(machine_from(store=store, mlflow="").store)
    before, after = run_from(results, first), run_from(results, second)
    if before.id == after.id:
        raise UserError(f"'{first}' and '{second}' are the same run, {before.id}")
    screen = console()
    for letter, run in (("A", before), ("B", after)):
        leaks = f"leaks: {', '.join(run.leaks)}" if run.leaks else ""
        facts = (f"{run.id} {run.name}", run.data, run.finished, run.git and f"git {run.git}", leaks)
        say(screen, f"{letter}  {', '.join(filter(None, facts))}")
    _print_settings(before, after, screen)
    _print_results(before, after, results, screen)
    _print_metrics(before, after, results, screen)


def _print_settings(before: Run, after: Run, screen: Console) -> None:
    _head(screen, "Settings")
    found = settings_changed(before, after)
    if not found:
        say(screen, "none differs")
        return
    table = _columns("setting", "A", "B")
    for each in found:
        table.add_row(*(escape(str(value)) for value in (each.path, each.first, each.second)))
    screen.print(table)


def _print_results(before: Run, after: Run, store: Store, screen: Console) -> None:
    _head(screen, "Results" if before.seeds == after.seeds else "Results of the first seeds")
    pairs = results_paired(before, after)
    table = _columns("step", "A", "B", "why")
    for pair in pairs:
        keys = ["—" if key is None else key[:_KEY_CHARACTERS] for key in (pair.first, pair.second)]
        table.add_row(escape(pair.step), *keys, "[dim]the same[/]" if pair.same else escape(reasons(pair, store)))
    screen.print(table)
    for change, steps in versions_changed(pairs, store).items():
        say(screen, f"{change} ({', '.join(steps)})")


def _print_metrics(before: Run, after: Run, store: Store, screen: Console) -> None:
    from reaemb_bench.reporting.comparison import read
    from reaemb_bench.reporting.results import K, results_table
    from reaemb_bench.reporting.table import MISSING, signed
    from reaemb_bench.reporting.verdicts import verdicts

    _head(screen, "Metrics")
    try:
        compared = read((before, after), store)
    except UserError as error:
        say(screen, f"not compared: {error}")
        return
    made = results_table("", compared.ranks, None, (), sampled=compared.sampled, compared=False)
    table = _columns("metric", "A", "B", "B - A")
    for column, one, other in zip(made.columns, made.rows[0].cells, made.rows[1].cells, strict=True):
        shown = [MISSING if cell.value is None else column.shown(cell.value) for cell in (one, other)]
        if shown[0] != shown[1]:
            missing = one.value is None or other.value is None
            table.add_row(column.name, *shown, MISSING if missing else signed((other.value or 0) - (one.value or 0)))
    if table.row_count:
        screen.print(table)
    else:
        say(screen, "none differs")
    for line in verdicts(compared.ranks, {}, K):
        say(screen, line)


def _columns(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    return table


def _head(screen: Console, title: str) -> None:
    screen.print(f"\n{title}", style="bold")
