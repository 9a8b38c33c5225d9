"""Which method beats which, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.evaluation.groups import SHORT, TAIL, user_groups
from reaemb_bench.evaluation.metrics import MetricName, metric_function, metric_heading, ndcg
from reaemb_bench.evaluation.significance import Comparison, MethodValues, compare, method_values
from reaemb_bench.evaluation.summary import over_seeds, summarise
from reaemb_bench.report.table import LEAK, Cell, Column, Row, Table, mark_best, number, signed


def verdicts(
    methods: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks], k: int, metric: MetricName = "ndcg"
) -> list[str]:
    """A sentence for each method against the best floor, then for the best method against each other one, by a metric.

    methods: the ranks of each method's seeds. Empty where there is nothing to compare, or nobody to judge by. The
    family of Holm's correction is every method against the best floor and every pair of methods, for which of the
    pairs are shown is decided by the same users.
    """
    values = metric_function(metric, k)
    trained = [method_values(name, seeds, values) for name, seeds in methods.items()]
    counted = [method_values(name, [ranks], values) for name, ranks in floors.items()]
    if any(len(each.users) < 2 for each in (*trained, *counted)):
        return []
    pairs = [(each, _best(counted)) for each in trained if counted]
    family = len(pairs) + len(trained) * (len(trained) - 1) // 2
    pairs += [(_best(trained), each) for each in trained if each is not _best(trained)]
    return [sentence(each) for each in compare(pairs, metric_heading(metric, k), family=family)]


def against_best(
    methods: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks], proposed: Collection[str], k: int
) -> tuple[Comparison, ...]:
    """Each proposed method against the best of the other methods and floors, by NDCG@k.

    Where none is proposed, the best of all is compared with the next. The family of Holm's correction is every pair
    that could have met, for which of the others is the best is decided by the same users. Empty where there is nothing
    to compare, or nobody to judge by.
    """
    metric = partial(ndcg, k=k)
    trained = [method_values(name, seeds, metric) for name, seeds in methods.items()]
    everyone = [*trained, *(method_values(name, [ranks], metric) for name, ranks in floors.items())]
    if len(everyone) < 2 or any(len(each.users) < 2 for each in everyone):
        return ()
    ours = [each for each in trained if each.name in proposed]
    family = len(ours) * (len(everyone) - len(ours))
    if not ours:
        ours, family = [_best(everyone)], len(everyone) * (len(everyone) - 1) // 2
    others = [each for each in everyone if not any(each is one for one in ours)]
    if not others:
        return ()
    return compare([(each, _best(others)) for each in ours], f"NDCG@{k}", family=family)


def sentence(comparison: Comparison) -> str:
    """What the comparison shows, or how small a difference it could have shown."""
    first, second, on = comparison.first, comparison.second, f"on {comparison.metric}"
    users = f"{comparison.users:,} users"
    if comparison.difference == comparison.low == comparison.high == 0:
        return f"{first} and {second} are equal {on} for every one of {users}"
    size = f"{signed(comparison.difference)} ({_evidence(comparison)}"
    if not comparison.shown:
        could = f"{users} could have shown {number(comparison.detectable)}"
        return f"no difference shown between {first} and {second} {on}: {size}); {could}"
    verb = "beats" if comparison.difference > 0 else "loses to"
    return f"{first} {verb} {second} {on}: {size}, {users})"


def _evidence(comparison: Comparison) -> str:
    interval = f"95 % interval {signed(comparison.low)} to {signed(comparison.high)}"
    correction = f" after Holm over {comparison.family} comparisons" if comparison.family > 1 else ""
    return f"{interval}, p = {number(comparison.adjusted_p)}{correction}"


def _best(methods: Sequence[MethodValues]) -> MethodValues:
    return max(methods, key=lambda each: each.mean)


# The table of results: methods and floors by metric, overall and by group.


K = 10

_LISTS = {
    f"full/coverage@{K}": Column("coverage"),
    f"full/gini@{K}": Column("Gini"),
    f"full/popularity@{K}": Column("popularity"),
    f"full/tail_share@{K}": Column("tail share"),
}


def results_table(
    title: str,
    named: Mapping[str, Sequence[Ranks]],
    floors: Floors | None,
    leaks: Sequence[str],
    tail: int = TAIL,
    short: int = SHORT,
    sampled: int | None = None,
    embedder_seed: int | None = None,
    *,
    leaking: Collection[str] | None = None,
    k: int = K,
    metric: MetricName = "ndcg",
    compared: bool = True,
) -> Table:
    """A row a method, each from the ranks of its seeds, then a row a floor; below them what differs from what.

    leaks: names of the steps that looked at held-out data on purpose; where there are any, all methods are marked, or
    those of `leaking` alone. k: cut-off of the columns. metric: what the verdicts are about.
    tail, short: thresholds of the groups, see `reaemb_bench.evaluation.groups`. sampled: how many candidates were
    stored for each user, where that is known. embedder_seed: the embedder's seed, where all seeds share one.
    compared: whether sentences below say what differs, for which another table may be the better place.
    Raises UserError where the methods did not rank the same targets of the same users.
    """
    by_floor = floors.by_name if floors is not None else {}
    everything = [ranks for seeds in named.values() for ranks in seeds] + list(by_floor.values())
    check_comparable(everything)
    marked = {name for name in named if leaks and (leaking is None or name in leaking)}
    columns = _columns(k, sampled)
    rows = [row_of(name, seeds, tail, short, leaks=name in marked, of=columns, k=k) for name, seeds in named.items()]
    rows += [row_of(name, [ranks], tail, short, floor=True, of=columns, k=k) for name, ranks in by_floor.items()]
    notes = _notes(everything[0], tail, short, sampled) if everything else []
    notes += seeds_note([len(seeds) for seeds in named.values()], embedder_seed)
    if compared:
        shown = {f"{name} {LEAK}" if name in marked else name: seeds for name, seeds in named.items()}
        notes += verdicts(shown, by_floor, k, metric)
    if leaks:
        notes.append(f"{LEAK} looks at held-out data on purpose ({', '.join(leaks)}): no fair comparison")
    return Table(title, tuple(columns.values()), mark_best(rows), tuple(notes))


def lists_table(named: Mapping[str, Sequence[Ranks]], floors: Floors | None, tail: int = TAIL) -> Table | None:
    """What the methods of `results_table` recommend, whether or not it was wanted; None where no lists are stored."""
    by_floor = floors.by_name if floors is not None else {}
    rows = [row_of(name, seeds, tail, SHORT, of=_LISTS) for name, seeds in named.items()]
    rows += [row_of(name, [ranks], tail, SHORT, floor=True, of=_LISTS) for name, ranks in by_floor.items()]
    if all(cell.missing for row in rows for cell in row.cells):
        return None
    notes = (
        f"of each user's {K} best items: share of the catalogue in any list, Gini index of how often its items are "
        f"listed (0: all equally often), mean training interactions, share of items with 1 to {tail - 1} of them",
    )
    return Table(f"Lists of {K}", tuple(_LISTS.values()), tuple(rows), notes)


def check_comparable(everything: Sequence[Ranks]) -> None:
    """Raises UserError where not all ranks are of the same targets of the same users."""
    for ranks in everything[1:]:
        first = everything[0]
        if not (np.array_equal(ranks.users, first.users) and np.array_equal(ranks.targets, first.targets)):
            raise UserError("these results rank different users or targets, so they cannot stand in one table")


def _columns(k: int, sampled: int | None) -> dict[str, Column]:
    """By the names of `summarise`."""
    candidates = "sampled" if sampled is None else f"sampled-{sampled}"
    return {
        f"full/hr@{k}": Column(f"HR@{k}"),
        f"full/ndcg@{k}": Column(f"NDCG@{k}"),
        "full/mrr": Column("MRR"),
        **{f"full/ndcg@{k}/{group}": Column(f"NDCG@{k}", group) for group in ("tail", "head", "short", "long", "cold")},
        f"sampled/hr@{k}": Column(f"HR@{k}", candidates),
        f"sampled/ndcg@{k}": Column(f"NDCG@{k}", candidates),
    }


def row_of(
    name: str,
    seeds: Sequence[Ranks],
    tail: int,
    short: int,
    *,
    floor: bool = False,
    leaks: bool = False,
    of: Mapping[str, Column],
    k: int = K,
) -> Row:
    """A row from the ranks of a method's seeds. of: the columns, by the names of `summarise`. k: their cut-off."""
    spread = over_seeds([summarise(ranks, (k,), tail, short) for ranks in seeds])
    cells = tuple(Cell(spread[key].mean, spread[key].sd) if key in spread else Cell(None) for key in of)
    return Row(name, cells, floor, leaks)


def _notes(ranks: Ranks, tail: int, short: int, sampled: int | None) -> list[str]:
    if not len(ranks.users):
        return ["no test user"]
    candidates = "stored candidates" if sampled is None else f"{sampled} stored candidates"
    return [
        *users_notes(ranks, tail, short),
        f"sampled: against {candidates} a user, for comparison with papers only; such metrics can reverse an order"
        if (ranks.sampled_better >= 0).any()
        else "sampled: no candidates were stored",
    ]


def users_notes(ranks: Ranks, tail: int, short: int) -> list[str]:
    """How many users are judged, against how many items, and how many of them each group has."""
    least, most = int(ranks.catalogue.min()), int(ranks.catalogue.max())
    against = f"{most:,} items" if least == most else f"{least:,} to {most:,} items"
    sizes = {
        name: int(inside.sum()) for name, inside in user_groups(ranks.popularity, ranks.history, tail, short).items()
    }
    return [
        f"{len(ranks.users):,} test users; each target is ranked against {against}, itself included: "
        "the whole catalogue without the user's history",
        f"targets by training interactions: tail below {tail} ({sizes['tail']:,} users), head ({sizes['head']:,}), "
        f"cold none ({sizes['cold']:,}); histories: short below {short} items ({sizes['short']:,}), "
        f"long ({sizes['long']:,})",
    ]


def seeds_note(counts: Sequence[int], embedder_seed: int | None) -> list[str]:
    """What stands behind ±: nothing where each of the methods has one seed. counts: seeds of each method."""
    least, most = min(counts, default=1), max(counts, default=1)
    if most == 1:
        return []
    seeds = f"{most} seeds" if least == most else f"{least} to {most} seeds"
    shared = "" if embedder_seed is None else f" of the recommender, the embedder's being {embedder_seed} in all"
    return [f"mean ± standard deviation over {seeds}{shared}"]
