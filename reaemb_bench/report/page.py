"""Remembered runs side by side: their tables, their curves in words, and a page with plots and what was run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reaemb_bench.core.artifacts import Alignment, Corpus, Encoder, Floors, Ranks, TestTargets, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.runs import Run, artifact_of, changed_settings, floors_of, ranks_of
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.groups import SHORT, TAIL
from reaemb_bench.evaluation.metrics import MetricName, ndcg
from reaemb_bench.report import plots
from reaemb_bench.report.alignment import alignment_table, alignments_of
from reaemb_bench.report.plots import Plot, Point
from reaemb_bench.report.recipe_tables import Manifest, data_fingerprint, origin_notes, run_manifests
from reaemb_bench.report.render import Block, Facts, Listing, Paragraph, page
from reaemb_bench.report.results import (
    By,
    K,
    bins_table,
    check_rows,
    differences_table,
    lists_table,
    results_table,
    users_notes,
)
from reaemb_bench.report.table import LEAK, Cell, Column, Row, Table

_COSTS = {
    "seconds": Column("seconds", cost=True),
    "peak_memory_bytes": Column("bytes", "peak", cost=True),
    "trained_parameters": Column("parameters", "trained", cost=True),
    "tokens": Column("tokens", cost=True),
}
_MACHINE = ("precision", "threads", "deterministic")
_WITHOUT_COST = {kind.__name__ for kind in (Corpus, Ranks, Floors)}
_NO_BASE = (
    "no map from before tuning: give a run of the same recipe without its tuning steps too "
    "(reaemb-bench run RECIPE --drop lrcl --drop crrl)"
)


@dataclass(frozen=True)
class Compared:
    """Runs of the same targets, by the names of their rows, and the ranks of their seeds.

    floors: of the first run that has some. sampled: candidates stored for each user, if known. notes: which data the
    runs are of, and whether they mix precisions or devices. alignments: what runs measured on their vectors, by seed.
    """

    runs: Mapping[str, Run]
    ranks: Mapping[str, tuple[Ranks, ...]]
    floors: Floors | None
    sampled: int | None
    notes: tuple[str, ...]
    alignments: Mapping[str, Sequence[Alignment]]


def read(runs: Sequence[Run], store: Store) -> Compared:
    """Reads what the runs ranked; a run that is given twice counts once.

    Runs are called by their name, and by their id too if several have the same name.
    Raises UserError if a run has no ranks, the store lost them, or runs are not of the same data and targets.
    """
    different = list({run.id: run for run in runs}.values())
    names = [run.name for run in different]
    named = {run.name if names.count(run.name) == 1 else f"{run.name} {run.id}": run for run in different}
    (first, reference), *others = named.items()
    for name, run in others:
        if run.data != reference.data:
            raise UserError(
                f"{first} is on {reference.data or 'no data'} and {name} on {run.data or 'no data'}: "
                "compare runs on the same data"
            )
    ranks = {name: ranks_of(run, store) for name, run in named.items()}
    floors = next((counted for run in named.values() if (counted := floors_of(run, store)) is not None), None)
    unlike = check_rows(ranks, floors)
    counts = [sampled_candidates(run, store) for name, run in named.items() if name not in unlike]
    notes = origin_notes({name: run_manifests(run, store) for name, run in named.items()})
    sampled = next((count for count in counts if count is not None), None)
    alignments = {name: alignments_of(run, store) for name, run in named.items()}
    return Compared(named, ranks, floors, sampled, tuple(notes), alignments)


def sampled_candidates(run: Run, store: Store) -> int | None:
    """How many candidates were stored for each user, or None if that is not in the store."""
    key = run.key_of(TestTargets)
    return int(artifact_of(run, store, TestTargets).candidates.shape[1]) if key is not None and store.has(key) else None


@dataclass(frozen=True)
class Report:
    """One run, or several on the same data, and their tables; the first table is that of results."""

    title: str
    compared: Compared
    tables: tuple[Table, ...]


def report(
    runs: Sequence[Run],
    store: Store,
    against: Run | None = None,
    by: By | None = None,
    metric: MetricName = "ndcg",
    k: int = K,
    *,
    lists: bool = True,
) -> Report:
    """Reads what the runs ranked: tables of results, of differences from `against`, of bins, and of lists.

    against: one of the runs or another; without it, verdicts by the metric stand below the results.
    Raises UserError as `read` does.
    """
    compared = read([*runs, *([against] if against is not None else [])], store)
    named, ranks, floors = compared.runs, compared.ranks, compared.floors
    title = f"{len(named)} runs on {runs[0].data}" if len(named) > 1 else runs[0].title
    wanted = against.id if against is not None and len(named) > 1 else None
    reference = next((name for name, run in named.items() if run.id == wanted), None)
    seeds = {tomllib.loads(run.recipe).get("embedder_seed") for run in named.values()}
    leaking = [name for name, run in named.items() if run.leaks]
    results = results_table(
        title,
        ranks,
        floors,
        sorted({step for run in named.values() for step in run.leaks}),
        sampled=compared.sampled,
        embedder_seed=seeds.pop() if len(seeds) == 1 else None,
        leaking=leaking,
        k=k,
        metric=metric,
        compared=reference is None,
    )
    tables = [replace(results, notes=(*results.notes, *compared.notes))]
    if reference is not None:
        heading = f"Differences from {reference}"
        differences = differences_table(heading, ranks, reference, metric=metric, k=k, leaks=leaking)
        tables = [replace(tables[0], verdict=differences.verdict), replace(differences, verdict="")]
    if (aligned := alignment_table(compared.alignments)) is not None:
        tables.append(aligned)
    if by is not None:
        tables.append(bins_table(f"By {by}", ranks, floors, by, metric=metric, k=k, leaks=leaking))
    if lists and (recommended := lists_table(ranks, floors)) is not None:
        tables.append(recommended)
    return Report(title, compared, tuple(tables))


def what_differs(runs: Mapping[str, Run]) -> Facts:
    """The settings in which runs differ: a row for each, a column for each run."""
    values = changed_settings(list(runs.values()))
    return Facts("What differs", list(runs), [(path, list(map(str, of_runs))) for path, of_runs in values.items()])


def in_words(summary: Report, store: Store) -> tuple[str, ...]:
    """Learning curves and reinforcement in sentences; nothing is drawn."""
    recorded, methods = plots.curves(summary.compared.runs, store), tuple(summary.compared.runs)
    return (*plots.learning_readings(recorded, methods), *plots.reinforcement_readings(recorded, methods))


def report_html(summary: Report, store: Store) -> str:
    """A report as one page that needs no network; the same store gives the same text."""
    compared, named = summary.compared, summary.compared.runs
    ranks = next(iter(compared.ranks.values()))[0]
    differing = what_differs(named)
    blocks: list[Block] = [differing] if differing.rows else []
    blocks += [Paragraph(users_notes(ranks, TAIL, SHORT)[0])] if len(ranks.users) else []
    blocks += [
        Paragraph(f"{name} {LEAK} looks at held-out data on purpose ({', '.join(run.leaks)})", "warning")
        for name, run in named.items()
        if run.leaks
    ]
    main, *others = summary.tables
    recorded, methods = plots.curves(named, store), tuple(named)
    tail = plots.long_tail_plot(compared.ranks, compared.floors)
    drawn = (
        tail,
        plots.learning_plot(recorded, methods),
        plots.reinforcement_plot(recorded, methods),
        _vector_maps(named, store),
        None if tail is None else _costs(compared, store),
    )
    blocks += [replace(main, title="Results"), *others, *(plot for plot in drawn if plot is not None)]
    blocks.append(_what_was_run(named, store))
    for name, run in named.items():
        rows = []
        for result in run.results[0]:
            manifest = store.manifest(result.key) if store.has(result.key) else {"facts": {}}
            known = {**manifest["facts"], **manifest}
            rows.append(Row(result.step, tuple(Cell(known.get(fact)) for fact in _COSTS)))
        note = f"of seed {run.seeds[0]}, when it was computed; 10^9 bytes are a gigabyte"
        blocks.append(Table(f"Steps of {name}", tuple(_COSTS.values()), tuple(rows), (note,), rows_are="step"))
    blocks += [Listing(f"recipe of {name}, everything written out", run.recipe) for name, run in named.items()]
    return page(summary.title, blocks)


def _costs(compared: Compared, store: Store) -> Plot | None:
    def quality(seeds: Sequence[Ranks]) -> float:
        return sum(float(ndcg(ranks.better, ranks.tied, K).mean()) for ranks in seeds) / len(seeds)

    points = []
    for name, run in compared.runs.items():
        steps = [result for result in run.results[0] if not _WITHOUT_COST & set(result.makes)]
        if all(store.has(result.key) for result in steps):
            seconds = sum(float(store.manifest(result.key)["seconds"]) for result in steps)
            points.append(Point(name, seconds / 60, quality(compared.ranks[name])))
    by_floor = compared.floors.by_name if compared.floors is not None else {}
    floors = [(name, quality([ranks])) for name, ranks in by_floor.items()]
    return plots.cost_plot(points, max(floors, key=lambda floor: floor[1], default=None))


def _vector_maps(runs: Mapping[str, Run], store: Store) -> Plot | None:
    """One map for each run whose vectors are in the store, untuned ones first; runs that share vectors share it."""
    encoders = {
        name: [result.step for result in run.results[0] if Encoder.__name__ in result.makes]
        for name, run in runs.items()
    }
    untuned_first = sorted(runs, key=lambda name: len(encoders[name]))
    by_key: dict[str, str] = {}
    for name in untuned_first:
        # What came out of the encoder, before anything reduced it.
        key = next((result.key for result in runs[name].results[0] if Vectors.__name__ in result.makes), None)
        if key is not None and store.has(key):
            by_key.setdefault(key, name)
    first = runs[untuned_first[0]]
    corpus = first.key_of(Corpus)
    if not by_key or corpus is None or not store.has(corpus):
        return None
    shapes = {}
    for key, name in by_key.items():
        tuning = ", ".join(encoders[name][1:])
        state = f"after {tuning}" if tuning else "before tuning" if encoders[name] else "no tuning step"
        shapes[f"{name}, {state}"] = plots.shape_of(Vectors.load(store.verify(key, "vectors")))
    mapped = [len(encoders[name]) for name in by_key.values()]
    notes = [_NO_BASE] if max(mapped) > 1 and 1 not in mapped else []
    notes += ["of each run, the first seed is shown"] if any(len(run.seeds) > 1 for run in runs.values()) else []
    return plots.map_plot(shapes, artifact_of(first, store, Corpus).popularity, notes)


def _what_was_run(named: Mapping[str, Run], store: Store) -> Facts:
    runs = list(named.values())
    manifests = [run_manifests(run, store) for run in runs]
    packages = dict.fromkeys(name for of_run in manifests for manifest in of_run for name in manifest["versions"])

    def joined(texts: Iterable[str]) -> str:
        """Each of them once: steps may have been computed with different ones."""
        return ", ".join(dict.fromkeys(filter(None, texts)))

    def circumstance(manifest: Manifest, name: str) -> str:
        return str(manifest.get("machine", {}).get(name, ""))

    def device(manifest: Manifest) -> str:
        unnamed = "CUDA" if manifest["peak_memory_of"] == "cuda" else "no CUDA"
        return circumstance(manifest, "device").removesuffix(" (cpu)") or unnamed

    rows = [
        ("title", [run.title for run in runs]),
        ("id", [run.id for run in runs]),
        ("part of", [run.part_of for run in runs]),
        ("data", [run.data for run in runs]),
        ("sha256 of the data", [data_fingerprint(of_run) or "unknown" for of_run in manifests]),
        ("seeds", [", ".join(map(str, run.seeds)) for run in runs]),
        ("steps", [", ".join(result.step for result in run.results[0]) for run in runs]),
        ("looks at held-out data on purpose", [", ".join(run.leaks) or "no step" for run in runs]),
        ("finished", [run.finished for run in runs]),
        ("git", [run.git or "none" for run in runs]),
        ("device", [joined(map(device, of_run)) for of_run in manifests]),
        *((name, [joined(circumstance(facts, name) for facts in of_run) for of_run in manifests]) for name in _MACHINE),
        *(
            (name, [joined(str(manifest["versions"].get(name, "")) for manifest in of_run) for of_run in manifests])
            for name in packages
        ),
    ]
    return Facts("What was run", list(named), rows)
