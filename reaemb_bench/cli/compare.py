"""`reaemb-bench compare`: runs side by side, from what the store remembers of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reaemb_bench.cli.finding import existing_store, run_from
from reaemb_bench.cli.options import StorePlace, console, machine_from
from reaemb_bench.errors import UserError
from reaemb_bench.evaluation.named import MetricName
from reaemb_bench.reporting.bins import By
from reaemb_bench.reporting.export import check_ending, write_tables

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
    from reaemb_bench.reporting import comparison, terminal

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
        screen.print(terminal.render(table))
        screen.print()
    if out is not None:
        write_tables(out, title, tables)
        screen.print(f"written to {out}", markup=False, highlight=False, soft_wrap=True)
