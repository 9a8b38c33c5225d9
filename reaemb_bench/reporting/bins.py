"""The table of bins: a metric of each method among users whose target, or history, is of one size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from reaemb_bench.artifacts import Floors, Ranks
from reaemb_bench.evaluation.groups import Mask, quantile_bins
from reaemb_bench.evaluation.named import MetricName, heading_of, metric_named
from reaemb_bench.evaluation.summary import over_seeds
from reaemb_bench.reporting.results import K, check_comparable, seeds_note
from reaemb_bench.reporting.table import LEAK, Cell, Column, Row, Table, mark_best

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
    values = metric_named(metric, k)

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
    columns = tuple(Column(heading_of(metric, k), part) for part in bins)
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
