"""Which method beats which, in sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from reaemb_bench.artifacts import Ranks
from reaemb_bench.evaluation.metrics import ndcg
from reaemb_bench.evaluation.named import MetricName, heading_of, metric_named
from reaemb_bench.evaluation.significance import Comparison, Judged, compare, judged
from reaemb_bench.reporting.table import number, signed


def verdicts(
    methods: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks], k: int, metric: MetricName = "ndcg"
) -> list[str]:
    """A sentence for each method against the best floor, then for the best method against each other one, by a metric.

    methods: the ranks of each method's seeds. Empty where there is nothing to compare, or nobody to judge by. The
    family of Holm's correction is every method against the best floor and every pair of methods, for which of the
    pairs are shown is decided by the same users.
    """
    values = metric_named(metric, k)
    trained = [judged(name, seeds, values) for name, seeds in methods.items()]
    counted = [judged(name, [ranks], values) for name, ranks in floors.items()]
    if any(len(each.users) < 2 for each in (*trained, *counted)):
        return []
    pairs = [(each, _best(counted)) for each in trained if counted]
    family = len(pairs) + len(trained) * (len(trained) - 1) // 2
    pairs += [(_best(trained), each) for each in trained if each is not _best(trained)]
    return [sentence(each) for each in compare(pairs, heading_of(metric, k), family=family)]


def against_best(
    methods: Mapping[str, Sequence[Ranks]], floors: Mapping[str, Ranks], proposed: Collection[str], k: int
) -> tuple[Comparison, ...]:
    """Each proposed method against the best of the other methods and floors, by NDCG@k.

    Where none is proposed, the best of all is compared with the next. The family of Holm's correction is every pair
    that could have met, for which of the others is the best is decided by the same users. Empty where there is nothing
    to compare, or nobody to judge by.
    """
    metric = partial(ndcg, k=k)
    trained = [judged(name, seeds, metric) for name, seeds in methods.items()]
    everyone = [*trained, *(judged(name, [ranks], metric) for name, ranks in floors.items())]
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


def _best(methods: Sequence[Judged]) -> Judged:
    return max(methods, key=lambda each: each.mean)
