"""Which run a person means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reaemb_bench.cli.options import StorePlace, console, machine_from
from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load, locate
from reaemb_bench.core.runs import (
    Run,
    as_run,
    changed_settings,
    changed_versions,
    find,
    history,
    paired_results,
    ranks_of,
    reasons,
)
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.metrics import MetricName
from reaemb_bench.report.render import check_ending, write_tables
from reaemb_bench.report.results import By
from reaemb_bench.tracking.terminal import say


def run_from(store: Store, wanted: str) -> Run:
    """The run with this id, start of an id or name; else that of this recipe, if its results are in the store.

    A name with the ending .toml is always a recipe. Raises UserError.
    """
    if wanted.endswith(".toml"):
        return _of_recipe(store, wanted)
    try:
        return find(store, wanted)
    except UserError:
        if _is_recipe(wanted):
            return _of_recipe(store, wanted)
        raise


def existing_store(root: Path) -> Store:
    """The store in this folder. Raises UserError where there is none."""
    if not root.is_dir():
        raise UserError(f"there is no store {root}; run a recipe first, or name another with --store")
    return Store(root)


def _is_recipe(wanted: str) -> bool:
    try:
        locate(wanted)
    except UserError:
        return False
    return True


def _of_recipe(store: Store, wanted: str) -> Run:
    read = load(wanted)
    made = as_run([plan(read, seed) for seed in read.seeds], store)
    for place, seed in enumerate(made.seeds):
        key = made.key_of(Ranks, place)
        if key is not None and not store.has(key):
            raise UserError(
                f"{store.root} holds no results of {wanted} with seed {seed}; run it first, "
                "or give the id of a run with other settings (`history` lists them)"
            )
    # Of results that no run remembers, nobody knows when and from which revision they came.
    return next((run for run in history(store) if run.id == made.id), replace(made, finished="", git=""))


# `reaemb-bench history`: the runs that the store remembers.


_K = 10
_GIT_CHARACTERS = 8

Limit = Annotated[int, typer.Option("--limit", min=1, help="Show that many, the newest.")]
Data = Annotated[str | None, typer.Option("--data", help="Only runs on this data set.")]
Name = Annotated[str | None, typer.Option("--name", help="Only runs of this name.")]
GroupName = Annotated[str | None, typer.Option("--group", help="Only runs of this ablation, sweep or suite.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: a list of runs, numbers in full.")]


@dataclass(frozen=True)
class _Shown:
    """A run and its means over users and seeds; None where there are no such users, or the ranks are gone."""

    run: Run
    ndcg: float | None
    tail: float | None


def history_of_runs(
    limit: Limit = 20,
    data: Data = None,
    name: Name = None,
    group: GroupName = None,
    as_json: Json = False,
    store: StorePlace = None,
) -> None:
    """List remembered runs, newest first, with NDCG@10 of all test users and of those with a tail target."""
    results = existing_store(machine_from(store=store, mlflow="").store)
    wanted = {"data": data, "name": name, "group": group}
    found = [
        run
        for run in history(results)
        if all(value is None or getattr(run, part) == value for part, value in wanted.items())
    ]
    shown = [_read(run, results) for run in found[:limit]]
    if as_json:
        print(json.dumps([_plain(each) for each in shown], ensure_ascii=False, indent=1))
        return
    screen = console()
    if not found:
        screen.print("no such run is remembered", highlight=False)
        return
    screen.print(_table(shown))
    if len(found) > limit:
        screen.print(f"{limit} of {len(found)} runs; --limit shows more", highlight=False)


def _read(run: Run, store: Store) -> _Shown:
    from reaemb_bench.evaluation.groups import user_groups
    from reaemb_bench.evaluation.metrics import ndcg

    try:
        seeds = ranks_of(run, store)
    except UserError:
        return _Shown(run, None, None)
    every, tail = [], []
    for ranks in seeds:
        values = ndcg(ranks.better, ranks.tied, _K)
        members = user_groups(ranks.popularity, ranks.history)["tail"]
        every += [float(values.mean())] if len(values) else []
        tail += [float(values[members].mean())] if members.any() else []
    return _Shown(run, fmean(every) if every else None, fmean(tail) if tail else None)


def _table(shown: Sequence[_Shown]) -> Table:
    from reaemb_bench.report.table import LEAK, MISSING, number

    table = Table(box=None, pad_edge=False)
    numbers = ("NDCG@10", "tail")
    for heading in ("id", "when (UTC)", "name", "part of", "data", "seeds", *numbers, "git", ""):
        right = heading in numbers
        table.add_column(heading, justify="right" if right else "left", no_wrap=right or heading == "id")
    for each in shown:
        run = each.run
        means = [MISSING if value is None else number(value) for value in (each.ndcg, each.tail)]
        words = (run.name, _part_of(run), run.data, ", ".join(map(str, run.seeds)))
        leaks = f"{LEAK} {', '.join(run.leaks)}" if run.leaks else ""
        table.add_row(run.id, _when(run), *map(escape, words), *means, _git(run), escape(leaks))
    if any(each.run.leaks for each in shown):
        table.caption = f"{LEAK} looks at held-out data on purpose: no fair comparison"
        table.caption_justify = "left"
    return table


def _part_of(run: Run) -> str:
    return run.kind if not run.group else f"{run.kind} {run.group}"


def _when(run: Run) -> str:
    return f"{datetime.fromisoformat(run.finished):%Y-%m-%d %H:%M}"


def _git(run: Run) -> str:
    """The start of the revision, and whether it had changes."""
    revision, dash, changed = run.git.partition("-")
    return f"{revision[:_GIT_CHARACTERS]}{dash}{changed}"


def _plain(each: _Shown) -> dict[str, Any]:
    run = each.run
    return {
        "id": run.id,
        "finished": run.finished,
        "name": run.name,
        "title": run.title,
        "kind": run.kind,
        "group": run.group,
        "data": run.data,
        "seeds": run.seeds,
        "leaks": run.leaks,
        "git": run.git,
        f"ndcg@{_K}": each.ndcg,
        f"ndcg@{_K}/tail": each.tail,
    }


# `reaemb-bench compare`: runs side by side, from what the store remembers of them.


RunNames = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Ids, their starts, names of runs, or recipes, on one data set."),
]
Against = Annotated[
    str | None, typer.Option("--against", metavar="RUN", help="Show how far the others stand from this run.")
]
Bins = Annotated[
    By | None,
    typer.Option(
        "--by", help="Show the metric by popularity of the target, by length of the history, or cold and warm targets."
    ),
]
Metric = Annotated[MetricName, typer.Option("--metric", help="What verdicts, differences and bins are about.")]
CutOff = Annotated[int, typer.Option("--k", min=1, help="Cut-off of HR and NDCG.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the tables; the ending of the file says the format.")
]


def compare(
    runs: RunNames,
    against: Against = None,
    by: Bins = None,
    metric: Metric = "ndcg",
    k: CutOff = 10,
    out: Out = None,
    store: StorePlace = None,
) -> None:
    """Show runs of the same data in one table, with the floors, and what differs from what.

    Everything is computed from the ranks in the store; nothing runs again. Of a name, the newest run is meant.
    """
    from reaemb_bench.report import comparison
    from reaemb_bench.report import render as terminal

    if out is not None:
        check_ending(out)
    results = existing_store(machine_from(store=store, mlflow="").store)
    chosen = [run_from(results, wanted) for wanted in runs]
    reference = None if against is None else run_from(results, against)
    if reference is not None:
        chosen.append(reference)
    if len({run.id for run in chosen}) < 2:
        raise UserError("compare takes two different runs or more; `history` lists those that the store remembers")
    compared = comparison.read(chosen, results)
    named = None if reference is None else next(name for name, run in compared.runs.items() if run.id == reference.id)
    title = f"{len(compared.runs)} runs on {chosen[0].data}"
    tables = comparison.tables(compared, title, against=named, by=by, metric=metric, k=k)
    screen = console()
    for table in tables:
        screen.print(terminal.render_terminal(table))
        screen.print()
    if out is not None:
        write_tables(out, title, tables)
        screen.print(f"written to {out}", markup=False, highlight=False, soft_wrap=True)


# `reaemb-bench report`: what remembered runs reached, as tables in the terminal and as a page with plots.


RunNames_of_report = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Ids, their starts, names of runs, or recipes, on one data set.")
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page with tables and plots that needs no network."),
]
Out_of_report = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the tables; the ending of the file says the format.")
]
Against_of_report = Annotated[
    str | None, typer.Option("--against", metavar="RUN", help="Show how far the runs stand from this one.")
]


def report(
    runs: RunNames_of_report, html: Html = None, out: Out = None, against: Against = None, store: StorePlace = None
) -> None:
    """Report remembered runs: tables and curves in words, and as files tables or a page with plots.

    Nothing is computed again. Runs must be on the same data; of a name, the newest run is meant.
    """
    from reaemb_bench.report import page as reports
    from reaemb_bench.report import render as terminal

    if out is not None:
        check_ending(out)
    results = existing_store(machine_from(store=store, mlflow="").store)
    chosen = [run_from(results, wanted) for wanted in runs]
    reference = None if against is None else run_from(results, against)
    made = reports.report(chosen, results, reference)
    screen = console()
    for table in made.tables:
        screen.print(terminal.render_terminal(table))
        screen.print()
    for line in reports.in_words(made, results):
        screen.print(line, markup=False, highlight=False)
    if out is not None:
        write_tables(out, made.title, made.tables)
        screen.print(f"written to {out}", markup=False, highlight=False, soft_wrap=True)
    if html is not None:
        from reaemb_bench.report.page import report_html

        _write(html, report_html(chosen, results, reference))
        screen.print(f"written to {html}", markup=False, highlight=False, soft_wrap=True)


def _write(file: Path, text: str) -> None:
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another --html") from None


# `reaemb-bench diff`: what two runs have in common, and what not.


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
    found = changed_settings(before, after)
    if not found:
        say(screen, "none differs")
        return
    table = _columns("setting", "A", "B")
    for each in found:
        table.add_row(*(escape(str(value)) for value in (each.path, each.first, each.second)))
    screen.print(table)


def _print_results(before: Run, after: Run, store: Store, screen: Console) -> None:
    _head(screen, "Results" if before.seeds == after.seeds else "Results of the first seeds")
    pairs = paired_results(before, after)
    table = _columns("step", "A", "B", "why")
    for pair in pairs:
        keys = ["—" if key is None else key[:_KEY_CHARACTERS] for key in (pair.first, pair.second)]
        table.add_row(escape(pair.step), *keys, "[dim]the same[/]" if pair.same else escape(reasons(pair, store)))
    screen.print(table)
    for change, steps in changed_versions(pairs, store).items():
        say(screen, f"{change} ({', '.join(steps)})")


def _print_metrics(before: Run, after: Run, store: Store, screen: Console) -> None:
    from reaemb_bench.report.comparison import read
    from reaemb_bench.report.results import K, results_table, verdicts
    from reaemb_bench.report.table import MISSING, signed

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
