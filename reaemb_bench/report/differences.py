"""The table of differences: how far each method is from one of them, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.registry import nearest
from reaemb_bench.evaluation.groups import SHORT, TAIL, Mask, user_groups
from reaemb_bench.evaluation.metrics import MetricName, metric_function, metric_heading
from reaemb_bench.evaluation.significance import ALPHA, POWER, Comparison, MethodValues, compare, method_values
from reaemb_bench.report.results import K, check_rows, summary_cells
from reaemb_bench.report.table import LEAK, Cell, Column, Row, Table, number

_PARTS = ("", "tail", "head")


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
    pairs = {
        (name, part): (_among(values[name], inside), _among(values[against], inside))
        for name in named
        for part, inside in members.items()
        if name != against and inside.sum() > 1
    }
    comparisons = dict(zip(pairs, compare(list(pairs.values()), heading), strict=True))
    full = "full/mrr" if metric == "mrr" else f"full/{metric}@{k}"
    rows = []
    for name in (against, *(name for name in named if name != against)):
        own = summary_cells(named[name], [f"{full}/{part}".removesuffix("/") for part in _PARTS], tail, k=k)
        rows.append(Row(name, (*own, *(_cell(comparisons.get((name, part))) for part in _PARTS)), leaks=name in leaks))
    columns = [Column(heading, part) for part in _PARTS]
    columns += [Column(f"Δ {heading}", part, difference=True) for part in _PARTS]
    notes = _notes(against, comparisons, members, tail)
    notes += [f"{LEAK} looks at held-out data on purpose: no fair comparison"] if set(named) & set(leaks) else []
    return Table(title, tuple(columns), tuple(rows), tuple(notes))


def _among(method: MethodValues, members: Mask) -> MethodValues:
    return MethodValues(method.name, method.users[members], method.targets[members], method.values[members])


def _cell(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return Cell(None)
    return Cell(comparison.difference, interval=(comparison.low, comparison.high), verdict=_verdict(comparison))


def _verdict(comparison: Comparison) -> str:
    if comparison.difference == comparison.low == comparison.high == 0:
        return "equal"
    if not comparison.shown:
        return "none shown"
    return "better" if comparison.difference > 0 else "worse"


def _notes(
    against: str, comparisons: Mapping[tuple[str, str], Comparison], members: Mapping[str, Mask], tail: int
) -> list[str]:
    """comparisons: by the name of a method and the part of the users."""
    if not comparisons:
        return ["no differences: they need two methods and two test users"]
    family = next(iter(comparisons.values())).family
    over = f" after Holm over the {family} differences of this table" if family > 1 else ""
    notes = [
        f"Δ: minus {against}, over the same users, and its 95 % bootstrap interval; better, worse: a paired "
        f"randomisation test at level {f'{ALPHA:g}'.removeprefix('0')} shows it{over}; none shown: it does not, which "
        "does not prove equality; each interval is of its difference alone, so one may exclude 0 although none is shown"
    ]
    detectable = []
    for part in _PARTS:
        # Equal methods do not vary, so they do not say what could have been shown.
        values = [
            comparison.detectable
            for (_, of), comparison in comparisons.items()
            if of == part and _verdict(comparison) != "equal"
        ]
        if values:
            least, most = number(min(values)), number(max(values))
            between = least if least == most else f"{least} to {most}"
            detectable.append(f"{part or 'all'} {between} ({int(members[part].sum()):,} users)")
    if detectable:
        notes.append(
            "smallest true difference that one such test, uncorrected, would show with probability "
            f"{f'{POWER:g}'.removeprefix('0')}: {', '.join(detectable)}; tail: targets below {tail} training "
            "interactions"
        )
    return notes
