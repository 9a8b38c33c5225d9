"""The tables that people see of a recipe's results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reaemb_bench.core.artifacts import Corpus, Floors, Ranks, TestTargets
from reaemb_bench.core.execute import facts_of, fetch, fetch_all
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.store import Store
from reaemb_bench.report.expected import Expected
from reaemb_bench.report.table import Table

NOTHING = Expected(())
"""What is expected of a recipe that nobody measured."""


def tables_of(plans: Sequence[Plan], results: Store, expected: Expected = NOTHING) -> list[Table]:
    """The tables of executed plans, one a seed of one recipe; none where the recipe ranks nothing."""
    by_plan = [fetch_all(planned, results, Ranks) for planned in plans]
    if not by_plan[0]:
        return []
    from reaemb_bench.report.health import health_notes
    from reaemb_bench.report.results import lists_table, results_table

    recipe = plans[0].recipe
    only = len(by_plan[0]) == 1
    named = {recipe.name if only else step: [each[step] for each in by_plan] for step in by_plan[0]}
    floors = fetch(plans[0], results, Floors)
    table = results_table(
        recipe.title,
        named,
        floors,
        plans[0].leaks,
        sampled=_sampled(plans[0], results),
        embedder_seed=recipe.embedder_seed,
    )
    table = expected.noted(table, len(next(iter(by_plan[0].values())).users), facts_of(plans[0], results, Corpus))
    table = replace(table, notes=(*table.notes, *health_notes(plans, results)))
    lists = lists_table(named, floors)
    return [table] if lists is None else [table, lists]


def _sampled(planned: Plan, results: Store) -> int | None:
    """How many candidates were stored for each user, where that is in the store."""
    job = planned.job_of(TestTargets)
    # Where all that depends on it is cached, the data step's own result may be gone.
    if job is None or not results.has(job.key):
        return None
    test_targets = fetch(planned, results, TestTargets)
    return int(test_targets.candidates.shape[1]) if test_targets is not None else None
