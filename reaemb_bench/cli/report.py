"""`reaemb-bench report`: what remembered runs reached, as tables in the terminal and as a page with plots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reaemb_bench.cli.finding import existing_store, run_from
from reaemb_bench.cli.options import StorePlace, console, machine_from
from reaemb_bench.errors import UserError
from reaemb_bench.files import write_atomically
from reaemb_bench.reporting.export import check_ending, write_tables

RunNames = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Ids, their starts, names of runs, or recipes, on one data set.")
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Write a page with tables and plots that needs no network."),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the tables; the ending of the file says the format.")
]
Against = Annotated[
    str | None, typer.Option("--against", metavar="RUN", help="Show how far the runs stand from this one.")
]


def report(
    runs: RunNames, html: Html = None, out: Out = None, against: Against = None, store: StorePlace = None
) -> None:
    """Report remembered runs: tables and curves in words, and as files tables or a page with plots.

    Nothing is computed again. Runs must be on the same data; of a name, the newest run is meant.
    """
    from reaemb_bench.reporting import report as reports
    from reaemb_bench.reporting import terminal

    if out is not None:
        check_ending(out)
    results = existing_store(machine_from(store=store, mlflow="").store)
    chosen = [run_from(results, wanted) for wanted in runs]
    reference = None if against is None else run_from(results, against)
    made = reports.report(chosen, results, reference)
    screen = console()
    for table in made.tables:
        screen.print(terminal.render(table))
        screen.print()
    for line in reports.in_words(made, results):
        screen.print(line, markup=False, highlight=False)
    if out is not None:
        write_tables(out, made.title, made.tables)
        screen.print(f"written to {out}", markup=False, highlight=False, soft_wrap=True)
    if html is not None:
        from reaemb_bench.reporting.page import report_html

        _write(html, report_html(chosen, results, reference))
        screen.print(f"written to {html}", markup=False, highlight=False, soft_wrap=True)


def _write(file: Path, text: str) -> None:
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another --html") from None
