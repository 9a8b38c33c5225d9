"""A report of remembered runs: their tables, and their curves in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reaemb_bench.core.artifacts import Corpus, Encoder, Floors, Ranks, Vectors
from reaemb_bench.core.runs import Result, Run, artifact_of
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.groups import SHORT, TAIL
from reaemb_bench.evaluation.metrics import ndcg
from reaemb_bench.report import comparison, html
from reaemb_bench.report import plots as costs
from reaemb_bench.report import plots as embeddings
from reaemb_bench.report import plots as learning
from reaemb_bench.report import plots as long_tail
from reaemb_bench.report import plots as reinforcement
from reaemb_bench.report.comparison import Compared
from reaemb_bench.report.plots import Plot, Point, curves
from reaemb_bench.report.results import K, lists_table, users_notes
from reaemb_bench.report.table import LEAK, Cell, Column, Row, Table


@dataclass(frozen=True)
class Report:
    """What people read of one run, or of several on the same data; the first table is that of results."""

    title: str
    compared: Compared
    tables: tuple[Table, ...]


def report(runs: Sequence[Run], store: Store, against: Run | None = None) -> Report:
    """Read what the runs ranked; differences from `against`, one of them or another, stand in a table of their own.

    Raises UserError as `reaemb_bench.reporting.comparison.read` does.
    """
    compared = comparison.read([*runs, *([against] if against is not None else [])], store)
    several = len(compared.runs) > 1
    title = f"{len(compared.runs)} runs on {runs[0].data}" if several else runs[0].title
    wanted = against.id if against is not None and several else None
    reference = next((name for name, run in compared.runs.items() if run.id == wanted), None)
    tables = comparison.tables(compared, title, against=reference)
    lists = lists_table(compared.ranks, compared.floors)
    return Report(title, compared, (*tables, *([] if lists is None else [lists])))


def in_words(made: Report, store: Store) -> tuple[str, ...]:
    """The learning curves and the reinforcement in sentences; nothing is drawn."""
    recorded, methods = curves(made.compared.runs, store), tuple(made.compared.runs)
    return (*learning.readings(recorded, methods), *reinforcement.readings_of_reinforcement(recorded, methods))


# A report as one HTML page: tables, plots, and what was run, with what and where.


_NO_COST = {each.__name__ for each in (Corpus, Ranks, Floors)}
_NO_BASE = (
    "no map from before tuning: give a run of the same recipe without its tuning steps too "
    "(reaemb-bench run RECIPE --drop lrcl --drop crrl)"
)


def report_html(runs: Sequence[Run], store: Store, against: Run | None = None) -> str:
    """The report of runs on the same data as one page that needs no network; the same store gives the same text.

    Raises UserError as `reaemb_bench.reporting.comparison.read` does.
    """
    made = report(runs, store, against)
    named = made.compared.runs
    ranks = next(iter(made.compared.ranks.values()))[0]
    body = [html.paragraph(note) for note in (users_notes(ranks, TAIL, SHORT)[:1] if len(ranks.users) else [])]
    body += [
        html.paragraph(f"{name} {LEAK} looks at held-out data on purpose ({', '.join(run.leaks)})", "warning")
        for name, run in named.items()
        if run.leaks
    ]
    main, *others = made.tables
    body += [html.section(table) for table in (replace(main, title="Results"), *others)]
    body += [html.plot(each) for each in plots(made.compared, store)]
    body.append(_about(named, store))
    body += [html.section(_steps(name, run, store), rows="step") for name, run in named.items()]
    body += [html.listing(f"recipe of {name}, everything written out", run.recipe) for name, run in named.items()]
    return html.page(made.title, "".join(body))


def plots(made: Compared, store: Store) -> tuple[Plot, ...]:
    """All plots for which the store has the numbers."""
    floors = made.floors.by_name if made.floors is not None else {}
    tail = long_tail.long_tail(made.ranks, floors)
    recorded, methods = curves(made.runs, store), tuple(made.runs)
    points = _points(made, store) if tail is not None else []
    drawn = (
        None if tail is None else long_tail.draw_of_long_tail(tail),
        learning.draw(recorded, methods),
        reinforcement.draw_of_reinforcement(recorded, methods),
        _maps(made, store),
        costs.draw_of_costs(points, _best_floor(floors) if points else None),
    )
    return tuple(each for each in drawn if each is not None)


def _maps(made: Compared, store: Store) -> Plot | None:
    """One map for each run whose vectors are in the store; before tuning first. Runs that share vectors share it."""
    runs = sorted(made.runs.items(), key=lambda each: len(_encoders(each[1])))
    vectors = {name: key for name, run in runs if (key := _first_vectors(run)) is not None and store.has(key)}
    first = runs[0][1]
    corpus = first.key_of(Corpus)
    if not vectors or corpus is None or not store.has(corpus):
        return None
    once = {key: name for name, key in reversed(vectors.items())}
    shapes = {
        f"{name}, {_state(made.runs[name])}": embeddings.shape_of(Vectors.load(store.verify(key, "vectors")))
        for name, key in vectors.items()
        if once[key] == name
    }
    encoders = [len(_encoders(made.runs[name])) for name in vectors]
    notes = [_NO_BASE] if max(encoders) > 1 and 1 not in encoders else []
    notes += ["of each run, the first seed is shown"] if any(len(run.seeds) > 1 for _, run in runs) else []
    return embeddings.draw_of_embeddings(shapes, artifact_of(first, store, Corpus).popularity, notes)


def _first_vectors(run: Run) -> str | None:
    """What came out of the encoder, before anything reduced it."""
    return next((result.key for result in run.results[0] if Vectors.__name__ in result.makes), None)


def _state(run: Run) -> str:
    encoders = _encoders(run)
    if not encoders:
        return "no tuning step"
    return f"after {', '.join(result.step for result in encoders[1:])}" if len(encoders) > 1 else "before tuning"


def _encoders(run: Run) -> list[Result]:
    return [result for result in run.results[0] if Encoder.__name__ in result.makes]


def _points(made: Compared, store: Store) -> list[Point]:
    points = []
    for name, run in made.runs.items():
        learning_steps = [result for result in run.results[0] if not _NO_COST & set(result.makes)]
        if all(store.has(result.key) for result in learning_steps):
            seconds = sum(float(store.manifest(result.key)["seconds"]) for result in learning_steps)
            points.append(Point(name, seconds / 60, _quality(made.ranks[name])))
    return points


def _quality(seeds: Sequence[Ranks]) -> float:
    return sum(float(ndcg(ranks.better, ranks.tied, K).mean()) for ranks in seeds) / len(seeds)


def _best_floor(floors: Mapping[str, Ranks]) -> tuple[str, float] | None:
    return max(((name, _quality([ranks])) for name, ranks in floors.items()), key=lambda each: each[1], default=None)


def _about(named: Mapping[str, Run], store: Store) -> str:
    runs = list(named.values())
    manifests = [_manifests(run, store) for run in runs]
    versions = [[manifest["versions"] for manifest in some] for some in manifests]
    names = dict.fromkeys(name for some in versions for each in some for name in each)
    rows = [
        ("title", [run.title for run in runs]),
        ("id", [run.id for run in runs]),
        ("part of", [f"{run.kind} {run.group}".strip() for run in runs]),
        ("data", [run.data for run in runs]),
        ("seeds", [", ".join(map(str, run.seeds)) for run in runs]),
        ("steps", [", ".join(result.step for result in run.results[0]) for run in runs]),
        ("looks at held-out data on purpose", [", ".join(run.leaks) or "no step" for run in runs]),
        ("finished", [run.finished for run in runs]),
        ("git", [run.git or "none" for run in runs]),
        ("device", [_joined(_device(each) for each in some) for some in manifests]),
        *((name, [_joined(str(each.get(name, "")) for each in some) for some in versions]) for name in names),
    ]
    return html.facts("What was run", list(named), rows)


def _manifests(run: Run, store: Store) -> list[Mapping[str, Any]]:
    keys = dict.fromkeys(result.key for seed in run.results for result in seed)
    return [store.manifest(key) for key in keys if store.has(key)]


def _device(manifest: Mapping[str, Any]) -> str:
    return "CUDA" if manifest["peak_memory_of"] == "cuda" else "no CUDA"


def _joined(texts: Iterable[str]) -> str:
    """Each of them once; several where steps were computed with different ones."""
    return ", ".join(dict.fromkeys(filter(None, texts)))


_COSTS = {
    "seconds": Column("seconds", cost=True),
    "peak_memory_bytes": Column("bytes", "peak", cost=True),
    "trained_parameters": Column("parameters", "trained", cost=True),
    "tokens": Column("tokens", cost=True),
}


def _steps(name: str, run: Run, store: Store) -> Table:
    """What each step took, of the first seed."""
    rows = []
    for result in run.results[0]:
        manifest = store.manifest(result.key) if store.has(result.key) else {"facts": {}}
        known = {**manifest["facts"], **manifest}
        rows.append(Row(result.step, tuple(Cell(known.get(each)) for each in _COSTS)))
    return Table(
        f"Steps of {name}",
        tuple(_COSTS.values()),
        tuple(rows),
        (f"of seed {run.seeds[0]}, when it was computed; 10^9 bytes are a gigabyte",),
    )
