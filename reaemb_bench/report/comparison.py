"""The table of bins: a metric of each method among users whose target, or history, is of one size."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np

from reaemb_bench.core.artifacts import Floors, Ranks, TestTargets
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.runs import Run, artifact_of, floors_of, ranks_of
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.groups import Mask, quantile_bins
from reaemb_bench.evaluation.metrics import MetricName, metric_function, metric_heading
from reaemb_bench.evaluation.summary import over_seeds
from reaemb_bench.report.differences import differences_table
from reaemb_bench.report.results import K, check_comparable, results_table, seeds_note
from reaemb_bench.report.table import LEAK, Cell, Column, Row, Table, mark_best

By = Literal["popularity", "history", "cold"]

_EDGES = (0, 1, 5, 20, 100)
_WORDS = {
    "popularity": "training interactions of the target",
    "history": "items in the history, bins of about equal size",
    "cold": "cold targets have no training interaction",
}


def bins_table(
    title: str,
    named: Mapping[str, Sequence[Ranks]],
    floors: Floors | None,
    by: By,
    *,
    metric: MetricName = "ndcg",
    k: int = K,
    leaks: Collection[str] = (),
) -> Table:
    """A row a method, then a row a floor: the metric of all users, then of those in each bin.

    popularity: training interactions of the target, none, 1 to 4, 5 to 19, 20 to 99, 100 and more. history: items in
    the user's history, five bins of about equal size. cold: targets without a training interaction, and the others.
    How many users a bin has stands below; without any its numbers are missing. leaks: names of methods that looked at
    held-out data on purpose.
    Raises UserError where the methods did not rank the same targets of the same users.
    """
    by_floor = floors.by_name if floors is not None else {}
    everything = [*(ranks for seeds in named.values() for ranks in seeds), *by_floor.values()]
    check_comparable(everything)
    bins = _bins(everything[0], by)
    values = metric_function(metric, k)

    def row(name: str, seeds: Sequence[Ranks], floor: bool) -> Row:
        found = over_seeds(
            [
                {part: float(gains[members].mean()) for part, members in bins.items() if members.any()}
                for gains in (values(ranks.better, ranks.tied) for ranks in seeds)
            ]
        )
        cells = [Cell(found[part].mean, found[part].sd) if part in found else Cell(None) for part in bins]
        return Row(name, tuple(cells), floor=floor, leaks=name in leaks)

    rows = [row(name, seeds, floor=False) for name, seeds in named.items()]
    rows += [row(name, [ranks], floor=True) for name, ranks in by_floor.items()]
    sizes = ", ".join(f"{part or 'all'} ({int(members.sum()):,})" for part, members in bins.items())
    notes = [f"users by {_WORDS[by]}: {sizes}", *seeds_note([len(seeds) for seeds in named.values()], None)]
    if any(each.leaks for each in rows):
        notes.append(f"{LEAK} looks at held-out data on purpose: no fair comparison")
    columns = tuple(Column(metric_heading(metric, k), part) for part in bins)
    return Table(title, columns, mark_best(rows), tuple(notes))


def _bins(ranks: Ranks, by: By) -> dict[str, Mask]:
    """By name, which users (n,) are in each bin; the first, without a name, has all."""
    everybody = np.ones(len(ranks.users), dtype=np.bool_)
    if by == "cold":
        return {"": everybody, "cold": ranks.popularity == 0, "warm": ranks.popularity > 0}
    if by == "popularity":
        bounds = pairwise((*_EDGES, np.inf))
        return {
            "": everybody,
            **{_between(low, high): (ranks.popularity >= low) & (ranks.popularity < high) for low, high in bounds},
        }
    curves = quantile_bins(ranks.popularity, ranks.history)
    return {
        "": everybody,
        **{f"{each.low} to {each.high}": each.members for name, each in curves.items() if name.startswith("history-")},
    }


def _between(low: float, high: float) -> str:
    if high == np.inf:
        return f"{low:g} up"
    return "none" if high == 1 else f"{low:g} to {high - 1:g}"


# Remembered runs side by side: what they are called, what they ranked, and their tables.


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
    key = run.key_of(TestTargets)
    return int(artifact_of(run, store, TestTargets).candidates.shape[1]) if key is not None and store.has(key) else None
