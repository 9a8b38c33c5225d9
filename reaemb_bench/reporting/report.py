"""A report of remembered runs: their tables, and their curves in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reaemb_bench.plots import learning, reinforcement
from reaemb_bench.plots.ticks import curves
from reaemb_bench.reporting import comparison
from reaemb_bench.reporting.comparison import Compared
from reaemb_bench.reporting.results import lists_table
from reaemb_bench.reporting.table import Table
from reaemb_bench.runs import Run
from reaemb_bench.store import Store


@dataclass(frozen=True)
class Report:
    """What people read of one run, or of several on the same data; the first table is that of results."""

    title: str
    compared: Compared
    tables: tuple[Table, ...]


def report(runs: Sequence[Run], store: Store, against: Run | None = None) -> Report:
    """Read what the runs ranked; differences from `against`, one of them or another, stand in a table of their own.

    Raises UserError as `reaemb_bench.reporting.comparison.read` does.
    """
    compared = comparison.read([*runs, *([against] if against is not None else [])], store)
    several = len(compared.runs) > 1
    title = f"{len(compared.runs)} runs on {runs[0].data}" if several else runs[0].title
    wanted = against.id if against is not None and several else None
    reference = next((name for name, run in compared.runs.items() if run.id == wanted), None)
    tables = comparison.tables(compared, title, against=reference)
    lists = lists_table(compared.ranks, compared.floors)
    return Report(title, compared, (*tables, *([] if lists is None else [lists])))


def in_words(made: Report, store: Store) -> tuple[str, ...]:
    """The learning curves and the reinforcement in sentences; nothing is drawn."""
    recorded, methods = curves(made.compared.runs, store), tuple(made.compared.runs)
    return (*learning.readings(recorded, methods), *reinforcement.readings(recorded, methods))
