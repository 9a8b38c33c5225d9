"""The table of differences: how far each method stands from one of them, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.registry import nearest
from reaemb_bench.evaluation.groups import SHORT, TAIL, Mask, user_groups
from reaemb_bench.evaluation.metrics import Metric, MetricName, metric_function, metric_heading
from reaemb_bench.evaluation.significance import ALPHA, POWER, Comparison, MethodValues, compare, method_values
from reaemb_bench.evaluation.summary import over_seeds, summarise
from reaemb_bench.report.results import K, check_comparable
from reaemb_bench.report.table import LEAK, Cell, Column, Row, Table, number

BETTER, WORSE, NONE_SHOWN, EQUAL = "better", "worse", "none shown", "equal"
"""Verdicts on a difference."""

_PARTS = ("", "tail", "head")

_Place = tuple[str, str]
"""A method's name and the part of the users, empty for all."""


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

    named: the ranks of each method's seeds. Columns: the metric of all users, and of those with a tail or head target;
    then the difference of each from the reference, its 95 % bootstrap interval and a verdict: `better` or `worse` where
    the paired randomisation test shows it after Holm's correction over all differences in this table, `none shown`
    where it does not, `equal` where no user's value differs. A user's value is the mean over seeds. A difference on
    fewer than two users is missing. leaks: names of methods that looked at held-out data on purpose.
    Raises UserError where `against` is none of the methods, or not all ranked the same targets of the same users.
    """
    if against not in named:
        raise UserError(f"no method is called '{against}'.{nearest(against, named)} Known: {', '.join(named)}")
    check_comparable([ranks for seeds in named.values() for ranks in seeds])
    inside = _members(named[against][0], tail)
    found = _compared(named, against, metric_function(metric, k), metric_heading(metric, k), inside)
    order = [against, *(name for name in named if name != against)]
    rows = tuple(
        Row(name, (*_values(named[name], metric, k, tail), *(_cell(found.get((name, part))) for part in _PARTS)))
        for name in order
    )
    rows = tuple(replace(row, leaks=row.name in leaks) for row in rows)
    columns = (
        *(Column(metric_heading(metric, k), part) for part in _PARTS),
        *(Column(f"Δ {metric_heading(metric, k)}", part, difference=True) for part in _PARTS),
    )
    notes = _notes(against, found, inside, tail) + _leak_note(rows)
    return Table(title, columns, rows, tuple(notes))


def _members(ranks: Ranks, tail: int) -> dict[str, Mask]:
    by_name = user_groups(ranks.popularity, ranks.history, tail, SHORT)
    return {part: by_name[part] if part else np.ones(len(ranks.users), dtype=np.bool_) for part in _PARTS}


def _compared(
    named: Mapping[str, Sequence[Ranks]], against: str, metric: Metric, heading: str, inside: Mapping[str, Mask]
) -> dict[_Place, Comparison]:
    reference = method_values(against, named[against], metric)
    pairs = {
        (name, part): (_among(other, members), _among(reference, members))
        for name, other in (
            (name, method_values(name, seeds, metric)) for name, seeds in named.items() if name != against
        )
        for part, members in inside.items()
        if members.sum() > 1
    }
    return dict(zip(pairs, compare(list(pairs.values()), heading), strict=True))


def _among(method: MethodValues, members: Mask) -> MethodValues:
    return MethodValues(method.name, method.users[members], method.targets[members], method.values[members])


def _values(seeds: Sequence[Ranks], metric: MetricName, k: int, tail: int) -> list[Cell]:
    spread = over_seeds([summarise(ranks, (k,), tail) for ranks in seeds])
    key = "full/mrr" if metric == "mrr" else f"full/{metric}@{k}"
    found = [spread.get("/".join(filter(None, (key, part)))) for part in _PARTS]
    return [Cell(None) if each is None else Cell(each.mean, each.sd) for each in found]


def _cell(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return Cell(None)
    return Cell(comparison.difference, interval=(comparison.low, comparison.high), verdict=_verdict(comparison))


def _verdict(comparison: Comparison) -> str:
    if comparison.difference == comparison.low == comparison.high == 0:
        return EQUAL
    if not comparison.shown:
        return NONE_SHOWN
    return BETTER if comparison.difference > 0 else WORSE


def _notes(against: str, found: Mapping[_Place, Comparison], inside: Mapping[str, Mask], tail: int) -> list[str]:
    if not found:
        return ["no differences: they need two methods and two test users"]
    family = next(iter(found.values())).family
    over = f" after Holm over the {family} differences of this table" if family > 1 else ""
    notes = [
        f"Δ: minus {against}, over the same users, and its 95 % bootstrap interval; {BETTER}, {WORSE}: a paired "
        f"randomisation test at level {_share(ALPHA)} shows it{over}; {NONE_SHOWN}: it does not, which is no proof of "
        "equality; each interval is of its difference alone, so one may exclude 0 where none is shown"
    ]
    could = [_detectable(part, inside[part], found) for part in _PARTS if any(where == part for _, where in found)]
    if told := list(filter(None, could)):
        notes.append(
            f"smallest true difference that one such test, uncorrected, would show with probability {_share(POWER)}: "
            f"{', '.join(told)}; tail: targets below {tail} training interactions"
        )
    return notes


def _detectable(part: str, members: Mask, found: Mapping[_Place, Comparison]) -> str:
    """Of the differences on one part of the users; equal methods do not vary and so say nothing of it."""
    of_part = [each for (_, where), each in found.items() if where == part and _verdict(each) != EQUAL]
    if not of_part:
        return ""
    least, most = (number(pick(each.detectable for each in of_part)) for pick in (min, max))
    between = least if least == most else f"{least} to {most}"
    return f"{part or 'all'} {between} ({int(members.sum()):,} users)"


def _share(value: float) -> str:
    return f"{value:g}".removeprefix("0")


def _leak_note(rows: Sequence[Row]) -> list[str]:
    names = [row.name for row in rows if row.leaks]
    return [f"{LEAK} looks at held-out data on purpose: no fair comparison"] if names else []
