"""What a method costs, from the manifests of its steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from reaemb_bench.core.artifacts import Floors, Ranks, TestTargets
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.plan import Job, Plan
from reaemb_bench.core.runs import Group, Run, forget, history, remember
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.groups import SHORT, TAIL
from reaemb_bench.experiments.suite import Entry, Grid, judge
from reaemb_bench.report.results import K, against_best, check_comparable, row_of, seeds_note, sentence, users_notes
from reaemb_bench.report.table import LEAK, SIGNIFICANT, Cell, Column, Row, Table, mark_best, mark_second


@dataclass(frozen=True)
class Costs:
    """What one run of a method takes, had it the machine to itself and an empty store.

    trained_parameters, tokens: sums of what its steps noted, all trained parts and all tokens that a language model
    read. seconds: of its steps' wall time. peak_memory_bytes: the most that any of them held.
    """

    trained_parameters: float
    tokens: float
    seconds: float
    peak_memory_bytes: float


def costs(planned: Plan, store: Store) -> Costs | None:
    """Costs of all that a plan's ranks depend on, without the data step and the judge; None where a result is gone."""
    jobs = _learning(planned)
    if not all(store.has(job.key) for job in jobs):
        return None
    manifests = [store.manifest(job.key) for job in jobs]
    return Costs(
        trained_parameters=sum(float(each["facts"].get("trained_parameters", 0)) for each in manifests),
        tokens=sum(float(each["facts"].get("tokens", 0)) for each in manifests),
        seconds=sum(float(each["seconds"]) for each in manifests),
        peak_memory_bytes=max((float(each["peak_memory_bytes"]) for each in manifests), default=0.0),
    )


def _learning(planned: Plan) -> list[Job]:
    judged = judge(planned)
    wanted = {judged.key}
    for job in reversed(planned.jobs):
        if job.key in wanted:
            wanted.update(key for _, key in job.inputs.values())
    return [job for job in planned.jobs if job.key in wanted - {judged.key} and TestTargets not in job.makes]


# What the store remembers of a suite, so that its results can be compared and are not taken for garbage.


def remember_cells(cells: Grid, store: Store, group: Group, of: Plan | None = None) -> None:
    """Remember the finished seeds of each method on each data set under each head as one run, and so the floors.

    A record of fewer of these seeds is replaced. of: only the cells that have this plan's result.
    """
    for plans in (*(entry.plans for entry in cells.entries), *((planned,) for planned in cells.floors.values())):
        finished = [planned for planned in plans if store.has(judge(planned).key)]
        if finished and (of is None or judge(of).key in {judge(planned).key for planned in finished}):
            made = remember(finished, store, group)
            for run in history(store):
                if _part_of(run, made):
                    forget(store, run)


def _part_of(run: Run, whole: Run) -> bool:
    same = (run.kind, run.group, run.name) == (whole.kind, whole.group, whole.name)
    return same and set(run.results) < set(whole.results)


# The tables of a suite, from what its store holds.


_TESTED = f"full/ndcg@{K}"
_METRICS = {
    f"full/{metric}@{K}{group and f'/{group}'}": Column(f"{metric.upper()}@{K}", group)
    for group in ("", "tail", "head")
    for metric in ("hr", "ndcg")
}
_COSTS = (
    Column("params", "trained", cost=True),
    Column("tokens", cost=True),
    Column("minutes", cost=True),
    Column("GB", "peak", cost=True),
)
_STAR_NOTE = f"{SIGNIFICANT}: beats the best baseline, floors included, after correction"
_COSTS_NOTE = (
    "costs of one run from an empty store, without data and judging: trained parameters of all steps, tokens that "
    "language models read, wall time of the steps, the most memory that a step held (of the GPU where one is used; of "
    "the whole process where the system tells no more)"
)


@dataclass(frozen=True)
class _Finished:
    """What is there of an entry: ranks and costs of its finished seeds."""

    entry: Entry
    ranks: tuple[Ranks, ...]
    costs: tuple[Costs, ...]


def suite_tables(cells: Grid, store: Store, reasons: Mapping[str, str]) -> list[Table]:
    """A table for each data set and head; a cell that is not in the store is missing, its reason stands below.

    reasons: by the key of the judge's result. Raises UserError where methods did not rank the same targets.
    """
    by_table: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(cells.entries, key=lambda each: list(cells.floors).index(each.data)):
        by_table.setdefault((entry.data, entry.head), []).append(entry)
    return [
        _table(", ".join(filter(None, names)), entries, cells, store, reasons) for names, entries in by_table.items()
    ]


def _table(title: str, entries: Sequence[Entry], cells: Grid, store: Store, reasons: Mapping[str, str]) -> Table:
    counted = cells.floors[entries[0].data]
    floors = fetch(counted, store, Floors) if store.has(judge(counted).key) else None
    by_floor = floors.by_name if floors is not None else {}
    methods = [_finished(entry, store) for entry in entries]
    everything = [*(ranks for each in methods for ranks in each.ranks), *by_floor.values()]
    check_comparable(everything)
    named = {each.entry.name: each.ranks for each in methods if each.ranks}
    compared = against_best(named, by_floor, [entry.name for entry in entries if entry.proposed], K)
    rows = _rows(methods, by_floor, {each.first for each in compared if each.shown and each.difference > 0})
    notes = users_notes(everything[0], TAIL, SHORT) if everything and len(everything[0].users) else []
    notes += [*seeds_note([len(ranks) for ranks in named.values()], None), *_embedders(entries)]
    notes += [_STAR_NOTE, *map(sentence, compared)] if compared else []
    notes += [_COSTS_NOTE, *_remarks(entries), *_missing(entries, counted, store, reasons)]
    return Table(title, (*_METRICS.values(), *_COSTS), rows, tuple(notes))


def _finished(entry: Entry, store: Store) -> _Finished:
    finished = [planned for planned in entry.plans if store.has(judge(planned).key)]
    ranks = [fetch(planned, store, Ranks) for planned in finished]
    prices = [costs(planned, store) for planned in finished]
    return _Finished(
        entry,
        tuple(each for each in ranks if each is not None),
        tuple(each for each in prices if each is not None),
    )


def _rows(methods: Sequence[_Finished], floors: Mapping[str, Ranks], winners: Collection[str]) -> tuple[Row, ...]:
    rows = [_metrics(each) for each in methods]
    rows += [row_of(name, [ranks], TAIL, SHORT, floor=True, of=_METRICS) for name, ranks in floors.items()]
    prices = [*(each.costs for each in methods), *(() for _ in floors)]
    return tuple(
        _with_costs(_starred(row) if row.name in winners else row, paid)
        for row, paid in zip(mark_second(mark_best(rows)), prices, strict=True)
    )


def _metrics(method: _Finished) -> Row:
    name, leaks = method.entry.name, bool(method.entry.plans[0].leaks)
    if not method.ranks:
        return Row(name, tuple(Cell(None) for _ in _METRICS), leaks=leaks)
    return row_of(name, method.ranks, TAIL, SHORT, leaks=leaks, of=_METRICS)


def _starred(row: Row) -> Row:
    place = list(_METRICS).index(_TESTED)
    cells = list(row.cells)
    cells[place] = replace(cells[place], significant=True)
    return replace(row, cells=tuple(cells))


def _with_costs(row: Row, paid: Sequence[Costs]) -> Row:
    if not paid:
        return replace(row, cells=(*row.cells, *(Cell(None) for _ in _COSTS)))
    means = (
        fmean(each.trained_parameters for each in paid),
        fmean(each.tokens for each in paid),
        fmean(each.seconds for each in paid) / 60,
        max(each.peak_memory_bytes for each in paid) / 1e9,
    )
    return replace(row, cells=(*row.cells, *map(Cell, means)))


def _embedders(entries: Sequence[Entry]) -> list[str]:
    """Whose embedder is drawn once and not anew in every run, so that its chance does not show in the deviation."""
    recipes = {entry.name: entry.plans[0].recipe for entry in entries if len(entry.plans) > 1}
    fixed = [
        f"{name} (seed {recipe.embedder_seed})"
        for name, recipe in recipes.items()
        if recipe.embedder_seed is not None and any(step.randomness == "embedder" for step in recipe.steps.values())
    ]
    return [f"one embedder for all seeds of the recommender: {', '.join(fixed)}"] if fixed else []


def _remarks(entries: Sequence[Entry]) -> list[str]:
    made = []
    if own := [entry.name for entry in entries if entry.head and not entry.takes_head]:
        made.append(f"not under {entries[0].head} but as in their recipes: {', '.join(own)}")
    if leaks := list(dict.fromkeys(step for entry in entries for step in entry.plans[0].leaks)):
        made.append(f"{LEAK} looks at held-out data on purpose ({', '.join(leaks)}): no fair comparison")
    return made


def _missing(entries: Sequence[Entry], floors: Plan, store: Store, reasons: Mapping[str, str]) -> list[str]:
    """A line for each reason: whom, and which seeds, it has cost their cell."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    cells = [(entry.name, planned) for entry in entries for planned in entry.plans]
    for name, planned in [*cells, ("floors", floors)]:
        key = judge(planned).key
        if not store.has(key):
            seeds = by_reason.setdefault(reasons.get(key, "not computed"), {}).setdefault(name, [])
            seeds.append(str(planned.seed))
    return [f"missing: {_whose(by_name)}: {reason}" for reason, by_name in by_reason.items()]


def _whose(seeds: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name}, seed{'s' if len(each) > 1 else ''} {', '.join(each)}" for name, each in seeds.items())
