"""Leaderboards: the embedders of a suite by data sets, from what the store holds; nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from statistics import fmean

from reaemb_bench.core.artifacts import Alignment, Encoder, Floors, Ranks, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.groups import SHORT, TAIL
from reaemb_bench.evaluation.metrics import ndcg
from reaemb_bench.evaluation.significance import Comparison, MethodValues, compare, method_values
from reaemb_bench.evaluation.summary import over_seeds
from reaemb_bench.experiments.bench import Cell as SuiteCell
from reaemb_bench.experiments.bench import Grid
from reaemb_bench.experiments.variants import judge
from reaemb_bench.report.recipe_tables import origin_notes, plan_manifests
from reaemb_bench.report.results import K, check_rows, seeds_note, summary_cells, users_notes
from reaemb_bench.report.table import Cell, Column, Row, Table, mark_best

_METRICS = {f"full/ndcg@{K}{group and f'/{group}'}": Column(f"NDCG@{K}", group) for group in ("", "tail", "cold")}
_ALIGNMENT = {"unseen_percentile": Column("percentile", "unseen"), "retrieval": Column(f"NDCG@{K}", "nearest")}
_COLUMNS = (
    *_METRICS.values(),
    Column("Δ best", difference=True),
    Column("group", cost=True),
    *_ALIGNMENT.values(),
    *(Column(name, part, cost=True) for name, part in (("width", ""), ("params", ""), ("minutes", "tuning"))),
    Column("s", "per 1,000", cost=True),
    Column("price", "per 1,000", cost=True),
)
_NOTES = (
    f"Δ best: NDCG@{K} minus that of the first row, over the same users, with its 95 % bootstrap interval; group: a "
    "paired randomisation test, after Holm over all pairs of embedders, shows no difference between the first of a "
    "group and the others in it, which does not prove equality",
    "percentile, unseen: mean rank, among all items, of a validation target seen from the items of the history with "
    "which it never co-occurs in training; 0 is nearest, .5 chance, lower is better; NDCG@10, nearest: validation "
    "targets ranked by mean cosine with the last ten items, nothing trained",
    "width: numbers of a vector that the recommender reads; params: of the embedder; minutes, tuning: of all stages "
    "that train it; s and price per 1,000: seconds and money to embed that many items, where they are known",
)


def leaderboard(title: str, grid: Grid, store: Store) -> list[Table]:
    """Returns a table over all data sets, if there are several, then one for each, embedders from best to worst.

    title: of the first. Cells that the store lacks are named below. Raises UserError if it lacks all of them, or if
    embedders did not rank the same targets.
    """
    by_table: dict[tuple[str, str], list[SuiteCell]] = {}
    for cell in grid.cells:
        if any(store.has(judge(planned).key) for planned in cell.variant.plans):
            by_table.setdefault((cell.data, cell.head), [])
    if not by_table:
        raise UserError(
            "nothing of this suite is in the store; compute it with `reaemb-bench bench`, or name its --store"
        )
    for cell in grid.cells:
        by_table.get((cell.data, cell.head), []).append(cell)
    tables = [
        _of_data(", ".join(filter(None, names)), cells, grid.floors[names[0]], store)
        for names, cells in by_table.items()
    ]
    return [_over_all(title, tables), *tables] if len(tables) > 1 else tables


def _of_data(title: str, cells: Sequence[SuiteCell], floors_plan: Plan, store: Store) -> Table:
    finished = {cell.name: [one for one in cell.variant.plans if store.has(judge(one).key)] for cell in cells}
    by_plan = {name: [fetch(one, store, Ranks) for one in plans] for name, plans in finished.items()}
    ranks = {name: [one for one in seeds if one is not None] for name, seeds in by_plan.items() if seeds}
    floors = fetch(floors_plan, store, Floors) if store.has(judge(floors_plan).key) else None
    check_rows(ranks, floors)
    values = [method_values(name, seeds, partial(ndcg, k=K)) for name, seeds in ranks.items()]
    values.sort(key=lambda method: -method.mean)
    groups, gaps = _groups(values)

    rows = []
    for method in values:
        name, gap = method.name, gaps.get(method.name)
        difference = Cell(None) if gap is None else Cell(-gap.difference, interval=(-gap.high, -gap.low))
        figures = [_figures(one, store) for one in finished[name]]
        spread = over_seeds([{figure: value for figure, value in one.items() if value == value} for one in figures])
        measured = [
            Cell(spread[figure].mean, spread[figure].sd if figure in _ALIGNMENT else None)
            if figure in spread
            else Cell(None)
            for figure in (*_ALIGNMENT, "width", "parameters", "tuning", "seconds", "price")
        ]
        cells_of = (*summary_cells(ranks[name], _METRICS), difference, Cell(groups[name]), *measured)
        rows.append(Row(name, cells_of, leaks=bool(finished[name][0].leaks)))
    nothing = (Cell(None),) * (len(_COLUMNS) - len(_METRICS))
    for name, one in ({} if floors is None else floors.by_name).items():
        rows.append(Row(name, (*summary_cells([one], _METRICS), *nothing), floor=True))

    marked = [
        replace(row, cells=(*best.cells[: len(_METRICS)], *row.cells[len(_METRICS) :]))
        for row, best in zip(rows, mark_best(rows), strict=True)
    ]
    everything = [one for seeds in ranks.values() for one in seeds]
    notes = (
        users_notes(everything[0], TAIL, SHORT) + seeds_note([len(seeds) for seeds in ranks.values()], None)
        if everything
        else []
    )
    notes += origin_notes({name: plan_manifests(plans, store) for name, plans in finished.items() if plans})
    missing = [
        f"{cell.name} (seed {planned.seed})"
        for cell in cells
        for planned in cell.variant.plans
        if planned not in finished[cell.name]
    ]
    notes += [f"not computed yet, `reaemb-bench bench` does it: {', '.join(missing)}"] if missing else []
    notes += [*_NOTES, 'to add yours: a line in the suite\'s `methods`, such as { recipe = "mine.toml" }']
    # Prices, for example, are known of few embedders.
    kept = [
        number
        for number, cells_of in enumerate(zip(*(row.cells for row in marked), strict=True))
        if number <= len(_METRICS) + 1 or not all(cell.missing for cell in cells_of)
    ]
    columns = tuple(_COLUMNS[number] for number in kept)
    narrow = tuple(replace(row, cells=tuple(row.cells[number] for number in kept)) for row in marked)
    return Table(title, columns, narrow, tuple(notes), "embedder", sortable=True)


def _groups(values: Sequence[MethodValues]) -> tuple[dict[str, int], dict[str, Comparison]]:
    """The group of each method, from 1, and the comparison of the first with each other one. values: best first."""
    pairs = list(combinations(values, 2)) if values and len(values[0].users) > 1 else []
    compared = {(one.first, one.second): one for one in compare(pairs, f"NDCG@{K}")}
    groups: dict[str, int] = {}
    for first in values:
        if first.name not in groups:
            number = len(set(groups.values())) + 1
            groups[first.name] = number
            for other in values:
                comparison = compared.get((first.name, other.name))
                if other.name not in groups and comparison is not None and not comparison.shown:
                    groups[other.name] = number
    return groups, {other: one for (first, other), one in compared.items() if first == values[0].name}


def _figures(planned: Plan, store: Store) -> dict[str, float]:
    """What is known of a plan's vectors and of what they cost."""
    figures: dict[str, float] = {}
    aligned = planned.job_of(Alignment)
    if aligned is not None and store.has(aligned.key):
        measured = store.load(aligned.key, Alignment).values
        figures |= {figure: measured[figure] for figure in _ALIGNMENT if figure in measured}
    makers = [job for job in planned.jobs if Vectors in job.makes]
    if not makers or not all(store.has(job.key) for job in makers):
        return figures
    # The first makes vectors of texts; what follows maps them.
    embedder, manifests = makers[0], {job.name: store.manifest(job.key) for job in planned.jobs if store.has(job.key)}
    thousands = store.load(embedder.key, Vectors).items / 1_000
    facts = manifests[embedder.name]["facts"]
    figures["width"] = float(manifests[makers[-1].name]["facts"]["width"])
    figures["seconds"] = float(manifests[embedder.name]["seconds"]) / thousands
    if "parameters" in facts:
        figures["parameters"] = float(facts["parameters"])
    if "price" in facts:
        figures["price"] = float(facts["price"]) / thousands
    stages = [
        job
        for job in planned.jobs
        if Encoder in job.makes and any(wanted is Encoder for wanted, _ in job.inputs.values())
    ]
    if all(job.name in manifests for job in stages):
        figures["tuning"] = sum(float(manifests[job.name]["seconds"]) for job in stages) / 60
    return figures


def _over_all(title: str, tables: Sequence[Table]) -> Table:
    """One row for each embedder: its NDCG and the place of its group on each data set; best mean first."""
    columns, by_name = [], dict[str, list[Cell]]()
    names = dict.fromkeys(row.name for table in tables for row in table.rows if not row.floor)
    for table in tables:
        columns += [Column(f"NDCG@{K}", table.title), Column("group", table.title, cost=True)]
        rows = {row.name: row for row in table.rows}
        for name in names:
            cells = rows[name].cells if name in rows else (Cell(None),) * len(_COLUMNS)
            by_name.setdefault(name, []).extend((cells[0], cells[len(_METRICS) + 1]))
    complete = {name: [cell.value for cell in cells[1::2]] for name, cells in by_name.items()}
    mean_group: Mapping[str, float] = {
        name: fmean(value for value in places if value is not None)
        for name, places in complete.items()
        if None not in places
    }
    ordered = sorted(by_name, key=lambda name: (mean_group.get(name, float("inf")), -(by_name[name][0].value or 0)))
    table_rows = [Row(name, (Cell(mean_group.get(name)), *by_name[name])) for name in ordered]
    note = "mean group: over the data sets, lower is better; a data set's users do not tell those of one group apart"
    return Table(
        title, (Column("mean group", cost=True), *columns), tuple(table_rows), (note,), "embedder", sortable=True
    )
