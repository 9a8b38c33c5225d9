"""What the store remembers of a suite, so that its results can be compared and are not taken for garbage."""

from __future__ import annotations

from reaemb_bench.bench.grid import Grid, judge
from reaemb_bench.pipeline import Plan
from reaemb_bench.runs import Group, Run, forget, history, remember
from reaemb_bench.store import Store


def remember_cells(cells: Grid, store: Store, group: Group, of: Plan | None = None) -> None:
    """Remember the finished seeds of each method on each data set under each head as one run, and so the floors.

    A record of fewer of these seeds is replaced. of: only the cells that have this plan's result.
    """
    for plans in (*(entry.plans for entry in cells.entries), *((planned,) for planned in cells.floors.values())):
        finished = [planned for planned in plans if store.has(judge(planned).key)]
        if finished and (of is None or judge(of).key in {judge(planned).key for planned in finished}):
            made = remember(finished, store, group)
            for run in history(store):
                if _part_of(run, made):
                    forget(store, run)


def _part_of(run: Run, whole: Run) -> bool:
    same = (run.kind, run.group, run.name) == (whole.kind, whole.group, whole.name)
    return same and set(run.results) < set(whole.results)
