"""A report of remembered runs: their tables, and their curves in words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reaemb_bench.artifacts import Floors, Holdout, Ranks
from reaemb_bench.plots import learning, reinforcement
from reaemb_bench.plots.ticks import curves
from reaemb_bench.reporting.differences import differences_table
from reaemb_bench.reporting.results import lists_table, results_table
from reaemb_bench.reporting.table import LEAK, Table
from reaemb_bench.runs import Run, artifact_of, floors_of, ranks_of
from reaemb_bench.store import Store

_SHORT_ID = 4


@dataclass(frozen=True)
class Report:
    """What people read of some runs of the same data: by name, each run and the ranks of its seeds."""

    title: str
    runs: Mapping[str, Run]
    ranks: Mapping[str, Sequence[Ranks]]
    floors: Floors | None
    tables: tuple[Table, ...]


def report(runs: Sequence[Run], store: Store, against: Run | None = None) -> Report:
    """Read what the runs have; differences from `against`, one of them or another, stand in a table of their own.

    Raises UserError where a run has no ranks, the store lost them, or they are of other users or targets.
    """
    chosen = tuple({run.id: run for run in (*runs, *([against] if against else []))}.values())
    named = labels(chosen)
    ranks = {name: ranks_of(run, store) for name, run in named.items()}
    floors = next((found for run in chosen if (found := floors_of(run, store)) is not None), None)
    title = chosen[0].title if len(chosen) == 1 else f"{len(chosen)} runs on {chosen[0].data}"
    tables = [_results(title, named, ranks, floors, _sampled(chosen[0], store)), lists_table(ranks, floors)]
    if against is not None and len(chosen) > 1:
        reference = next(name for name, run in named.items() if run.id == against.id)
        leaking = [name for name, run in named.items() if run.leaks]
        tables.insert(1, differences_table(f"Differences from {reference}", ranks, reference, leaks=leaking))
    return Report(title, named, ranks, floors, tuple(table for table in tables if table is not None))


def labels(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their name; where several have the same, with as much of the id behind it as tells them apart."""
    names, ids = [run.name for run in runs], {run.id for run in runs}
    length = next(
        count for count in range(_SHORT_ID, max(map(len, ids)) + 1) if len({each[:count] for each in ids}) == len(ids)
    )
    return {run.name if names.count(run.name) == 1 else f"{run.name} {run.id[:length]}": run for run in runs}


def in_words(made: Report, store: Store) -> tuple[str, ...]:
    """The learning curves and the reinforcement in sentences; nothing is drawn."""
    recorded, methods = curves(made.runs, store), tuple(made.runs)
    return (*learning.readings(recorded, methods), *reinforcement.readings(recorded, methods))


def _results(
    title: str,
    named: Mapping[str, Run],
    ranks: Mapping[str, Sequence[Ranks]],
    floors: Floors | None,
    sampled: int | None,
) -> Table:
    leaking = {f"{name} {LEAK}": name for name, run in named.items() if run.leaks}
    shown = {f"{name} {LEAK}" if named[name].leaks else name: seeds for name, seeds in ranks.items()}
    fixed = {tomllib.loads(run.recipe).get("embedder_seed") for run in named.values()}
    table = results_table(
        title, shown, floors, (), sampled=sampled, embedder_seed=fixed.pop() if len(fixed) == 1 else None
    )
    if not leaking:
        return table
    # Only some of the rows may leak, so each has its mark from here.
    rows = tuple(replace(row, name=leaking.get(row.name, row.name), leaks=row.name in leaking) for row in table.rows)
    steps = sorted({step for run in named.values() for step in run.leaks})
    note = f"{LEAK} looks at held-out data on purpose ({', '.join(steps)}): no fair comparison"
    return replace(table, rows=rows, notes=(*table.notes, note))


def _sampled(run: Run, store: Store) -> int | None:
    """How many candidates were stored for each user, where that is in the store."""
    key = run.key_of(Holdout)
    return int(artifact_of(run, store, Holdout).candidates.shape[1]) if key is not None and store.has(key) else None
