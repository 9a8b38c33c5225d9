"""Remembered runs side by side: what they are called, what they ranked, and their tables."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from reaemb_bench.artifacts import Floors, Holdout, Ranks
from reaemb_bench.errors import UserError
from reaemb_bench.evaluation.named import MetricName
from reaemb_bench.reporting.bins import By, bins_table
from reaemb_bench.reporting.differences import differences_table
from reaemb_bench.reporting.results import K, check_comparable, results_table
from reaemb_bench.reporting.table import Table
from reaemb_bench.runs import Run, artifact_of, floors_of, ranks_of
from reaemb_bench.store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class Compared:
    """Runs of the same targets, by the names of their rows, and the ranks of their seeds.

    floors: of the first run that has some. sampled: how many candidates were stored for each user, where that is known.
    """

    runs: Mapping[str, Run]
    ranks: Mapping[str, tuple[Ranks, ...]]
    floors: Floors | None
    sampled: int | None

    @property
    def leaking(self) -> list[str]:
        """Names of the runs that looked at held-out data on purpose."""
        return [name for name, run in self.runs.items() if run.leaks]


def read(runs: Sequence[Run], store: Store) -> Compared:
    """Read what the runs ranked; a run that is given twice counts once.

    Raises UserError where a run has no ranks, the store lost them, or runs are not of the same data and targets.
    """
    named = labels(list({run.id: run for run in runs}.values()))
    _check_data(named)
    ranks = {name: ranks_of(run, store) for name, run in named.items()}
    _check_targets(ranks)
    floors = [floors_of(run, store) for run in named.values()]
    sampled = [_sampled(run, store) for run in named.values()]
    return Compared(named, ranks, _first(floors), _first(sampled))


def labels(runs: Sequence[Run]) -> dict[str, Run]:
    """Runs by their name, with the id behind it where several have the same."""
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else f"{run.name} {run.id}": run for run in runs}


def tables(
    compared: Compared,
    title: str,
    *,
    against: str | None = None,
    by: By | None = None,
    metric: MetricName = "ndcg",
    k: int = K,
) -> list[Table]:
    """The table of results; the one of differences from the run `against`; the one of bins.

    Without `against`, sentences below the results say what differs, by the metric.
    """
    steps = sorted({step for run in compared.runs.values() for step in run.leaks})
    seeds = {tomllib.loads(run.recipe).get("embedder_seed") for run in compared.runs.values()}
    made = [
        results_table(
            title,
            compared.ranks,
            compared.floors,
            steps,
            sampled=compared.sampled,
            embedder_seed=seeds.pop() if len(seeds) == 1 else None,
            leaking=compared.leaking,
            k=k,
            metric=metric,
            compared=against is None,
        )
    ]
    if against is not None:
        heading = f"Differences from {against}"
        made.append(differences_table(heading, compared.ranks, against, metric=metric, k=k, leaks=compared.leaking))
    if by is not None:
        made.append(
            bins_table(f"By {by}", compared.ranks, compared.floors, by, metric=metric, k=k, leaks=compared.leaking)
        )
    return made


def _check_data(named: Mapping[str, Run]) -> None:
    (first, reference), *others = named.items()
    for name, run in others:
        if run.data != reference.data:
            raise UserError(
                f"{first} is on {reference.data or 'no data'} and {name} on {run.data or 'no data'}: "
                "compare runs on the same data"
            )


def _check_targets(ranks: Mapping[str, Sequence[Ranks]]) -> None:
    (first, (reference, *_)), *others = ranks.items()
    for name, (other, *_) in others:
        try:
            check_comparable([reference, other])
        except UserError as error:
            raise UserError(f"{first} and {name}: {error}") from None
        if not all(
            np.array_equal(getattr(reference, part), getattr(other, part))
            for part in ("popularity", "history", "catalogue")
        ):
            raise UserError(f"{first} and {name} were not trained on the same interactions: no table holds both")


def _first(found: Sequence[T | None]) -> T | None:
    return next((each for each in found if each is not None), None)


def _sampled(run: Run, store: Store) -> int | None:
    key = run.key_of(Holdout)
    return int(artifact_of(run, store, Holdout).candidates.shape[1]) if key is not None and store.has(key) else None
