"""Remembered runs side by side: what they are called, what they ranked, and their tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reaemb_bench.core.artifacts import Floors, Ranks, TestTargets
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.runs import Run, artifact_of, floors_of, ranks_of
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.metrics import MetricName
from reaemb_bench.report.differences import differences_table
from reaemb_bench.report.origins import origin_notes, run_manifests
from reaemb_bench.report.results import By, K, bins_table, check_rows, results_table
from reaemb_bench.report.table import Table


@dataclass(frozen=True)
class Compared:
    """Runs of the same targets, by the names of their rows, and the ranks of their seeds.

    floors: of the first run that has some. sampled: candidates stored for each user, if known. notes: which data the
    runs are of, and whether they mix precisions or devices.
    """

    runs: Mapping[str, Run]
    ranks: Mapping[str, tuple[Ranks, ...]]
    floors: Floors | None
    sampled: int | None
    notes: tuple[str, ...]

    @property
    def leaking(self) -> list[str]:
        """Names of the runs that looked at held-out data on purpose."""
        return [name for name, run in self.runs.items() if run.leaks]


def read(runs: Sequence[Run], store: Store) -> Compared:
    """Reads what the runs ranked; a run that is given twice counts once.

    Raises UserError if a run has no ranks, the store lost them, or runs are not of the same data and targets.
    """
    named = labels(list({run.id: run for run in runs}.values()))
    (first, reference), *others = named.items()
    for name, run in others:
        if run.data != reference.data:
            raise UserError(
                f"{first} is on {reference.data or 'no data'} and {name} on {run.data or 'no data'}: "
                "compare runs on the same data"
            )
    ranks = {name: ranks_of(run, store) for name, run in named.items()}
    floors = next((counted for run in named.values() if (counted := floors_of(run, store)) is not None), None)
    unlike = check_rows(ranks, floors)
    counts = [sampled_candidates(run, store) for name, run in named.items() if name not in unlike]
    notes = origin_notes({name: run_manifests(run, store) for name, run in named.items()})
    return Compared(named, ranks, floors, next((count for count in counts if count is not None), None), tuple(notes))


def labels(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their name, followed by the id if several have the same."""
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else f"{run.name} {run.id}": run for run in runs}


def sampled_candidates(run: Run, store: Store) -> int | None:
    """How many candidates were stored for each user, or None if that is not in the store."""
    key = run.key_of(TestTargets)
    return int(artifact_of(run, store, TestTargets).candidates.shape[1]) if key is not None and store.has(key) else None


def tables(
    compared: Compared,
    title: str,
    *,
    against: str | None = None,
    by: By | None = None,
    metric: MetricName = "ndcg",
    k: int = K,
) -> list[Table]:
    """The table of results, the one of differences from the run `against`, and the one of bins.

    Without `against`, verdicts by the metric stand below the results.
    """
    seeds = {tomllib.loads(run.recipe).get("embedder_seed") for run in compared.runs.values()}
    results = results_table(
        title,
        compared.ranks,
        compared.floors,
        sorted({step for run in compared.runs.values() for step in run.leaks}),
        sampled=compared.sampled,
        embedder_seed=seeds.pop() if len(seeds) == 1 else None,
        leaking=compared.leaking,
        k=k,
        metric=metric,
        compared=against is None,
    )
    shown = [replace(results, notes=(*results.notes, *compared.notes))]
    if against is not None:
        heading = f"Differences from {against}"
        shown.append(differences_table(heading, compared.ranks, against, metric=metric, k=k, leaks=compared.leaking))
    if by is not None:
        shown.append(
            bins_table(f"By {by}", compared.ranks, compared.floors, by, metric=metric, k=k, leaks=compared.leaking)
        )
    return shown
