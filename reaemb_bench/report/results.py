"""Tables computed from ranks: results of methods and floors, their lists, bins of users, differences; and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.registry import nearest
from reaemb_bench.evaluation.comparability import check_comparable
from reaemb_bench.evaluation.groups import SHORT, TAIL, Mask, quantile_bins, user_groups
from reaemb_bench.evaluation.metrics import Metric, MetricName, metric_function, metric_heading, ndcg
from reaemb_bench.evaluation.significance import ALPHA, POWER, Comparison, MethodValues, compare, method_values
from reaemb_bench.evaluation.summary import Spread, over_seeds, summarise
from reaemb_bench.report.table import LEAK, UNLIKE, Cell, Column, Row, Table, mark_best, number, signed

K = 10
By = Literal["popularity", "history", "cold"]

_LISTS = {
    f"full/coverage@{K}": Column("coverage", better=""),
    f"full/gini@{K}": Column("Gini", better=""),
    f"full/popularity@{K}": Column("popularity", cost=True),
    f"full/tail_share@{K}": Column("tail share", better=""),
}
_POPULARITY_EDGES = (0, 1, 5, 20, 100, np.inf)
_BINS = {
    "popularity": "training interactions of the target",
    "history": "items in the history, bins of about equal size",
    "cold": "cold targets have no training interaction",
}
_UNFAIR = f"{LEAK} looks at held-out data on purpose"
_PARTS = ("", "tail", "head")
"""Parts of the users for which differences are shown, all of them first."""


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
    """A row for each method, from the ranks of its seeds, then one for each floor; verdicts stand below.

    leaks: names of the steps that looked at held-out data on purpose, which mark the methods in `leaking`, or all.
    tail, short: thresholds of the groups, see `reaemb_bench.evaluation.groups`. sampled: candidates stored for each
    user, if known. embedder_seed: the embedder's seed, if all seeds share one. k: cut-off of the columns. metric: what
    the verdicts are about; compared: whether there are any.
    A row whose stored candidates are others than the first row's has marked, empty cells instead of sampled metrics.
    Raises UserError if the methods did not rank the same targets of the same users.
    """
    other_sample = check_rows(named, floors)
    marked = {name for name in named if leaks and (leaking is None or name in leaking)}
    candidates = "sampled" if sampled is None else f"sampled-{sampled}"
    groups = {"target": ("tail", "head", "cold"), "history": ("short", "long")}
    columns = {
        f"full/hr@{k}": Column(f"HR@{k}", group="overall"),
        f"full/ndcg@{k}": Column(f"NDCG@{k}", group="overall"),
        "full/mrr": Column("MRR", group="overall"),
        **{
            f"full/ndcg@{k}/{part}": Column(f"NDCG@{k}", part, group=f"NDCG@{k}, {of}")
            for of, parts in groups.items()
            for part in parts
        },
        f"sampled/hr@{k}": Column(f"HR@{k}", candidates, group=candidates),
        f"sampled/ndcg@{k}": Column(f"NDCG@{k}", candidates, group=candidates),
    }
    rows, notes = [], []
    for row in method_rows(named, floors, lambda seeds: summary_cells(seeds, columns, tail, short, k), marked):
        if (f"floor {row.name}" if row.floor else row.name) in other_sample:
            cells = [
                Cell(None, unlike=not cell.missing) if column.startswith("sampled/") else cell
                for column, cell in zip(columns, row.cells, strict=True)
            ]
            row = replace(row, cells=tuple(cells))
        rows.append(row)
    if everything := ranks_in(named, floors):
        ranks = everything[0]
        stored = "stored candidates" if sampled is None else f"{sampled} stored candidates"
        against = f"against {stored} a user, for comparison with papers only; such metrics can reverse an order"
        protocol = against if (ranks.sampled_better >= 0).any() else "no candidates were stored"
        notes = [*users_notes(ranks, tail, short), f"sampled: {protocol}"] if len(ranks.users) else ["no test user"]
    if any(cell.unlike for row in rows for cell in row.cells):
        notes.append(
            f"{UNLIKE} ranked against other stored candidates than the other rows, so not comparable with them"
        )
    notes += seeds_note([len(seeds) for seeds in named.values()], embedder_seed)
    verdict = ""
    if compared:
        shown = {f"{name} {LEAK}" if name in marked else name: seeds for name, seeds in named.items()}
        comparisons = _comparisons(shown, _by_floor(floors), k, metric)
        verdict = headline(comparisons, _by_floor(floors), len(named))
        notes += map(sentence, comparisons)
    if leaks:
        notes.append(f"{_UNFAIR} ({', '.join(leaks)}): no fair comparison")
    return Table(title, tuple(columns.values()), mark_best(rows), tuple(notes), verdict=verdict)


def lists_table(named: Mapping[str, Sequence[Ranks]], floors: Floors | None, tail: int = TAIL) -> Table | None:
    """What the methods of `results_table` recommend, whether or not users wanted it; None if no lists are stored."""
    rows = method_rows(named, floors, lambda seeds: summary_cells(seeds, _LISTS, tail))
    if all(cell.missing for row in rows for cell in row.cells):
        return None
    notes = (
        f"of each user's {K} best items: share of the catalogue in any list, Gini index of how often its items are "
        f"listed (0: all equally often), mean training interactions, share of items with 1 to {tail - 1} of them",
    )
    return Table(f"Lists of {K}", tuple(_LISTS.values()), tuple(rows), notes)


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
    """A row for each method, then each floor: the metric of all users, then of those in each bin.

    popularity: training interactions of the target, none, 1 to 4, 5 to 19, 20 to 99, 100 and more. history: items in
    the user's history, five bins of about equal size. cold: targets without a training interaction, and the others.
    leaks: names of methods that looked at held-out data on purpose.
    Raises UserError if the methods did not rank the same targets of the same users.
    """
    check_rows(named, floors)
    ranks = ranks_in(named, floors)[0]
    bins = {"": np.ones(len(ranks.users), dtype=np.bool_)}
    if by == "cold":
        bins |= {"cold": ranks.popularity == 0, "warm": ranks.popularity > 0}
    elif by == "history":
        quantiles = quantile_bins(ranks.popularity, ranks.history).items()
        bins |= {f"{one.low} to {one.high}": one.members for name, one in quantiles if name.startswith("history-")}
    else:
        for low, high in pairwise(_POPULARITY_EDGES):
            name = f"{low:g} up" if high == np.inf else "none" if high == 1 else f"{low:g} to {high - 1:g}"
            bins[name] = (ranks.popularity >= low) & (ranks.popularity < high)

    def cells(seeds: Sequence[Ranks]) -> list[Cell]:
        spread = by_bin(seeds, metric_function(metric, k), bins)
        return [_spread_cell(spread.get(part)) for part in bins]

    sizes = ", ".join(f"{part or 'all'} ({int(members.sum()):,})" for part, members in bins.items())
    notes = [f"users by {_BINS[by]}: {sizes}", *seeds_note([len(seeds) for seeds in named.values()], None)]
    notes += [f"{_UNFAIR}: no fair comparison"] if set(named) & set(leaks) else []
    heading = metric_heading(metric, k)
    columns = tuple(Column(heading, part, group=heading) for part in bins)
    return Table(title, columns, mark_best(method_rows(named, floors, cells, leaks)), tuple(notes))


def differences_table(
    title: str,
    named: Mapping[str, Sequence[Ranks]],
    against: str,
    *,
    metric: MetricName = "ndcg",
    k: int = K,
    tail: int = TAIL,
    leaks: Collection[str] = (),
) -> Table:
    """The row of the method `against`, then one for each other method with its differences from that one.

    named: the ranks of each method's seeds; a user's value is the mean over them. Columns: the metric of all users, and
    of those with a tail or head target; then the difference of each from the reference, its 95 % bootstrap interval
    and a verdict: `better` or `worse` if the paired randomisation test shows it after Holm's correction over all
    differences of this table, `none shown` if it does not, `equal` if no user's value differs. A difference on fewer
    than two users is missing. leaks: names of methods that looked at held-out data on purpose.
    Raises UserError if `against` is not a method, or not all ranked the same targets of the same users.
    """
    if against not in named:
        raise UserError(f"no method is called '{against}'.{nearest(against, named)} Known: {', '.join(named)}")
    check_rows(named, None)
    heading, reference = metric_heading(metric, k), named[against][0]
    by_group = user_groups(reference.popularity, reference.history, tail, SHORT)
    members = {part: by_group[part] if part else np.ones(len(reference.users), dtype=np.bool_) for part in _PARTS}
    values = {name: method_values(name, seeds, metric_function(metric, k)) for name, seeds in named.items()}

    def among(name: str, inside: Mask) -> MethodValues:
        method = values[name]
        return MethodValues(name, method.users[inside], method.targets[inside], method.values[inside])

    pairs = {
        (name, part): (among(name, inside), among(against, inside))
        for name in named
        for part, inside in members.items()
        if name != against and inside.sum() > 1
    }
    comparisons = dict(zip(pairs, compare(list(pairs.values()), heading), strict=True))
    full = "full/mrr" if metric == "mrr" else f"full/{metric}@{k}"
    rows = []
    for name in (against, *(name for name in named if name != against)):
        cells = summary_cells(named[name], [f"{full}/{part}".removesuffix("/") for part in _PARTS], tail, k=k)
        for part in _PARTS:
            if (shown := comparisons.get((name, part))) is None:
                cells.append(Cell(None))
            else:
                cells.append(Cell(shown.difference, interval=(shown.low, shown.high), verdict=_outcome(shown)))
        rows.append(Row(name, tuple(cells), leaks=name in leaks))
    columns = [Column(heading, part, group=heading) for part in _PARTS]
    columns += [Column(f"Δ {heading}", part, difference=True, group=f"Δ {heading}") for part in _PARTS]
    notes = ["no differences: they need two methods and two test users"]
    if comparisons:
        family = next(iter(comparisons.values())).family
        over = f" after Holm over the {family} differences of this table" if family > 1 else ""
        notes = [
            f"Δ: minus {against}, over the same users, and its 95 % bootstrap interval; better, worse: a paired "
            f"randomisation test at level {f'{ALPHA:g}'.removeprefix('0')} shows it{over}; none shown: it does not, "
            "which does not prove equality; each interval is of its difference alone, so one may exclude 0 although "
            "none is shown"
        ]
    detectable = []
    for part in _PARTS:
        # Equal methods do not vary, so they do not say what could have been shown.
        unequal = [one for (_, of), one in comparisons.items() if of == part and _outcome(one) != "equal"]
        if unequal:
            sizes = [one.detectable for one in unequal]
            least, most = number(min(sizes)), number(max(sizes))
            between = least if least == most else f"{least} to {most}"
            detectable.append(f"{part or 'all'} {between} ({int(members[part].sum()):,} users)")
    if detectable:
        notes.append(
            "smallest true difference that one such test, uncorrected, would show with probability "
            f"{f'{POWER:g}'.removeprefix('0')}: {', '.join(detectable)}; tail: targets below {tail} training "
            "interactions"
        )
    notes += [f"{_UNFAIR}: no fair comparison"] if set(named) & set(leaks) else []
    outcomes = {name: _outcome(shown) for (name, part), shown in comparisons.items() if not part}
    clauses = []
    words = {"better": "better than", "worse": "worse than", "none shown": "not shown to differ from"}
    for outcome, relation in words.items():
        if chosen := [name for name, other in outcomes.items() if other == outcome]:
            clauses.append(f"{_and(chosen)} {'are' if len(chosen) > 1 else 'is'} {relation} {against}")
    verdict = f"on {heading}, {'; '.join(clauses)}" if clauses else ""
    return Table(title, tuple(columns), tuple(rows), tuple(notes), verdict=verdict)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _outcome(comparison: Comparison) -> str:
    if comparison.difference == comparison.low == comparison.high == 0:
        return "equal"
    if not comparison.shown:
        return "none shown"
    return "better" if comparison.difference > 0 else "worse"


def by_bin(seeds: Sequence[Ranks], metric: Metric, bins: Mapping[str, Mask]) -> dict[str, Spread]:
    """Mean of a metric over the users of each bin that has any, and its spread over seeds."""
    values = [metric(ranks.better, ranks.tied) for ranks in seeds]
    means = [
        {name: float(gains[members].mean()) for name, members in bins.items() if members.any()} for gains in values
    ]
    return over_seeds(means)


def summary_cells(
    seeds: Sequence[Ranks], columns: Collection[str], tail: int = TAIL, short: int = SHORT, k: int = K
) -> list[Cell]:
    """Cells from the ranks of a method's seeds. columns: names of `summarise`. k: their cut-off."""
    spread = over_seeds([summarise(ranks, (k,), tail, short) for ranks in seeds])
    return [_spread_cell(spread.get(name)) for name in columns]


def _spread_cell(spread: Spread | None) -> Cell:
    return Cell(None) if spread is None else Cell(spread.mean, spread.sd)


def method_rows(
    named: Mapping[str, Sequence[Ranks]],
    floors: Floors | None,
    cells: Callable[[Sequence[Ranks]], list[Cell]],
    leaks: Collection[str] = (),
) -> list[Row]:
    """A row for each method, then for each floor. cells: of a row, from the ranks of its seeds."""
    rows = [Row(name, tuple(cells(seeds)), leaks=name in leaks) for name, seeds in named.items()]
    return rows + [Row(name, tuple(cells([ranks])), floor=True) for name, ranks in _by_floor(floors).items()]


def _by_floor(floors: Floors | None) -> Mapping[str, Ranks]:
    return {} if floors is None else floors.by_name


def ranks_in(named: Mapping[str, Sequence[Ranks]], floors: Floors | None) -> list[Ranks]:
    """The ranks of all seeds of all methods, then those of the floors."""
    return [*(ranks for seeds in named.values() for ranks in seeds), *_by_floor(floors).values()]


def check_rows(named: Mapping[str, Sequence[Ranks]], floors: Floors | None) -> frozenset[str]:
    """The rows whose stored candidates are others than the first row's, floors as `floor NAME`.

    Raises UserError if anything else that numbers depend on differs between rows.
    """
    return check_comparable({**named, **{f"floor {name}": [ranks] for name, ranks in _by_floor(floors).items()}})


def users_notes(ranks: Ranks, tail: int, short: int) -> list[str]:
    """How many users are judged, against how many items, and how many users each group has."""
    least, most = int(ranks.catalogue.min()), int(ranks.catalogue.max())
    against = f"{most:,} items" if least == most else f"{least:,} to {most:,} items"
    groups = user_groups(ranks.popularity, ranks.history, tail, short)
    sizes = {name: int(inside.sum()) for name, inside in groups.items()}
    return [
        f"{len(ranks.users):,} test users; each target is ranked against {against}, itself included: "
        "the whole catalogue without the user's history",
        f"targets by training interactions: tail below {tail} ({sizes['tail']:,} users), head ({sizes['head']:,}), "
        f"cold none ({sizes['cold']:,}); histories: short below {short} items ({sizes['short']:,}), "
        f"long ({sizes['long']:,})",
    ]


def seeds_note(counts: Sequence[int], embedder_seed: int | None) -> list[str]:
    """What follows ±, or nothing if every method has one seed. counts: seeds of each method."""
    least, most = min(counts, default=1), max(counts, default=1)
    if most == 1:
        return []
    seeds = f"{most} seeds" if least == most else f"{least} to {most} seeds"
    shared = "" if embedder_seed is None else f" of the recommender, the embedder's being {embedder_seed} in all"
    return [f"mean ± standard deviation over {seeds}{shared}"]


# Verdicts: which method beats which, in sentences.


def verdicts(
    methods: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks], k: int, metric: MetricName = "ndcg"
) -> list[str]:
    """A sentence for each method against the best floor, then for the best method against each other one.

    methods: the ranks of each method's seeds. Empty if there is nothing to compare, or fewer than two users. Holm's
    family is every method against the best floor and every pair of methods, because the same users decide which pairs
    are shown.
    """
    return list(map(sentence, _comparisons(methods, floors, k, metric)))


def _comparisons(
    methods: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks], k: int, metric: MetricName
) -> Sequence[Comparison]:
    """What `verdicts` puts into sentences."""
    trained, counted = _judge(methods, floors, metric_function(metric, k))
    if any(len(method.users) < 2 for method in (*trained, *counted)):
        return ()
    pairs = [(method, _best(counted)) for method in trained if counted]
    family = len(pairs) + len(trained) * (len(trained) - 1) // 2
    pairs += [(_best(trained), method) for method in trained if method is not _best(trained)]
    return compare(pairs, metric_heading(metric, k), family=family)


def headline(comparisons: Sequence[Comparison], floors: Collection[str], methods: int = 1) -> str:
    """What comparisons show of the method that the last of them is about, in one sentence; empty without any.

    floors: names of methods that learn nothing. methods: if there are several, that method is the best of them.
    """
    if not comparisons:
        return ""
    best = comparisons[-1].first
    seconds: dict[str, list[str]] = {}
    for comparison in comparisons:
        if comparison.first == best:
            second = f"{comparison.second} (the best floor)" if comparison.second in floors else comparison.second
            seconds.setdefault(_outcome(comparison), []).append(second)
    words = {"better": "beats", "worse": "loses to", "none shown": "is not shown to differ from", "equal": "equals"}
    clauses = [f"{verb} {_and(seconds[outcome])}" for outcome, verb in words.items() if outcome in seconds]
    start = f"{best}, the best of {methods} methods," if methods > 1 else best
    return f"{start} {_and(clauses)} on {comparisons[0].metric}"


def against_best(
    methods: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks], proposed: Collection[str], k: int
) -> tuple[Comparison, ...]:
    """Each proposed method against the best of the other methods and floors, by NDCG@k.

    If none is proposed, the best of all is compared with the next. Holm's family is every pair that could have met,
    because the same users decide which is the best. Empty if there is nothing to compare, or fewer than two users.
    """
    trained, counted = _judge(methods, floors, partial(ndcg, k=k))
    everyone = [*trained, *counted]
    if len(everyone) < 2 or any(len(method.users) < 2 for method in everyone):
        return ()
    ours = [method for method in trained if method.name in proposed]
    family = len(ours) * (len(everyone) - len(ours))
    if not ours:
        ours, family = [_best(everyone)], len(everyone) * (len(everyone) - 1) // 2
    others = [method for method in everyone if not any(method is own for own in ours)]
    return compare([(method, _best(others)) for method in ours], f"NDCG@{k}", family=family) if others else ()


def _judge(
    methods: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks], metric: Metric
) -> tuple[list[MethodValues], list[MethodValues]]:
    trained = [method_values(name, seeds, metric) for name, seeds in methods.items()]
    return trained, [method_values(name, [ranks], metric) for name, ranks in floors.items()]


def _best(methods: Sequence[MethodValues]) -> MethodValues:
    return max(methods, key=lambda method: method.mean)


def sentence(comparison: Comparison) -> str:
    """What the comparison shows, or how small a difference it could have shown."""
    first, second, on = comparison.first, comparison.second, f"on {comparison.metric}"
    users = f"{comparison.users:,} users"
    if _outcome(comparison) == "equal":
        return f"{first} and {second} are equal {on} for every one of {users}"
    correction = f" after Holm over {comparison.family} comparisons" if comparison.family > 1 else ""
    size = (
        f"{signed(comparison.difference)} (95 % interval {signed(comparison.low)} to {signed(comparison.high)}, "
        f"p = {number(comparison.adjusted_p)}{correction}"
    )
    if not comparison.shown:
        could = f"{users} could have shown {number(comparison.detectable)}"
        return f"no difference shown between {first} and {second} {on}: {size}); {could}"
    verb = "beats" if comparison.difference > 0 else "loses to"
    return f"{first} {verb} {second} {on}: {size}, {users})"
