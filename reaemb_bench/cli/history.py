"""`reaemb-bench history`: the runs that the store remembers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from reaemb_bench.cli.finding import existing_store
from reaemb_bench.cli.options import StorePlace, console, machine_from
from reaemb_bench.errors import UserError
from reaemb_bench.runs import Run, history, ranks_of
from reaemb_bench.store import Store

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
    from reaemb_bench.evaluation.groups import groups
    from reaemb_bench.evaluation.metrics import ndcg

    try:
        seeds = ranks_of(run, store)
    except UserError:
        return _Shown(run, None, None)
    every, tail = [], []
    for ranks in seeds:
        values = ndcg(ranks.better, ranks.tied, _K)
        members = groups(ranks.popularity, ranks.history)["tail"]
        every += [float(values.mean())] if len(values) else []
        tail += [float(values[members].mean())] if members.any() else []
    return _Shown(run, fmean(every) if every else None, fmean(tail) if tail else None)


def _table(shown: Sequence[_Shown]) -> Table:
    from reaemb_bench.reporting.table import LEAK, MISSING, number

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
