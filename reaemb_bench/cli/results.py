"""Verbs that read runs: `history`, `compare`, `report` and `diff`; `export` and `neighbors` read their item vectors."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from itertools import chain, zip_longest
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from reaemb_bench.cli.options import (
    Against,
    RunName,
    RunNames,
    TablesFile,
    Wide,
    existing_store,
    machine_options,
    run_names,
)
from reaemb_bench.cli.screen import KEY_CHARACTERS, plain_table, say, show, show_tables, write_file
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load, locate
from reaemb_bench.core.store import Store
from reaemb_bench.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reaemb_bench.core.runs import Run

MetricName = Literal["ndcg", "hr", "mrr"]
By = Literal["popularity", "history", "cold"]
Vectors = Literal["reduced", "encoded", "ranker"]
Format = Literal["safetensors", "parquet", "npy"]

_K = 10
_GIT_CHARACTERS = 8
_SETTINGS_SHOWN = 12

Bins = Annotated[By | None, Option(help="Show the metric for groups of users.")]
Metric = Annotated[MetricName, Option(help="What verdicts, differences and bins are about.")]
CutOff = Annotated[int, Option(min=1, max=1_000_000, help="Cut-off of HR and NDCG.")]
_WHICH = (
    "reduced: what the recommender was given; encoded: before any reduction; ranker: as the trained recommender reads "
    "them, to be multiplied with a user's state."
)
WhichVectors = Annotated[Vectors, Option("--vectors", help=_WHICH)]
Seed = Annotated[int | None, Option("--seed", help="Which of the run's seeds; by default its first.")]


def run_from(store: Store, wanted: str) -> Run:
    """The run with this id, start of an id or name; else that of this recipe, if its results are in the store.

    A name that ends with .toml is always a recipe. Raises UserError.
    """
    from reaemb_bench.core.artifacts import Ranks
    from reaemb_bench.core.plan import plan
    from reaemb_bench.core.runs import as_run, find, history

    if not wanted.endswith(".toml"):
        try:
            return find(store, wanted)
        except UserError as unknown:
            try:
                locate(wanted)
            except UserError:
                raise unknown from None
    recipe = load(wanted)
    run = as_run([plan(recipe, seed) for seed in recipe.seeds], store)
    for position, seed in enumerate(run.seeds):
        key = run.key_of(Ranks, position)
        if key is not None and not store.has(key):
            raise UserError(
                f"{store.root} holds no results of {wanted} with seed {seed}; run it first, "
                "or give the id of a run with other settings (`history` lists them)"
            )
    # If no run is remembered for these results, their time and revision are unknown.
    return next((other for other in history(store) if other.id == run.id), replace(run, finished="", git=""))


@machine_options("store")
def history(
    machine: Machine,
    limit: Annotated[int, Option(min=1, help="Show at most this many runs, the newest.")] = 20,
    data: Annotated[str | None, Option(help="Only runs on this data set.")] = None,
    name: Annotated[str | None, Option(help="Only runs of this name.")] = None,
    group: Annotated[str | None, Option(help="Only runs of this ablation, sweep or suite.")] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON: a list of runs, numbers in full.")] = False,
) -> None:
    """List remembered runs, newest first, with NDCG@10 of all test users and of those with a tail target.

    Examples:
    reaemb-bench history --data movielens-100k
    reaemb-bench history --json
    """
    from reaemb_bench.core import runs

    store = existing_store(machine)
    matching = [
        run
        for run in runs.history(store)
        if data in (None, run.data) and name in (None, run.name) and group in (None, *(of.name for of in run.groups))
    ]
    shown = [(run, *_means(run, store)) for run in matching[:limit]]
    if as_json:
        fields = ("id", "finished", "name", "title", "part_of", "data", "seeds", "leaks", "git")
        rows = [
            {**{field: getattr(run, field) for field in fields}, f"ndcg@{_K}": overall, f"ndcg@{_K}/tail": tail}
            for run, overall, tail in shown
        ]
        print(json.dumps(rows, ensure_ascii=False, indent=1))
    elif not matching:
        say("no such run is remembered")
    else:
        show(_history_table(shown))
        if len(matching) > limit:
            say(f"{limit} of {len(matching)} runs; --limit shows more")


def _means(run: Run, store: Store) -> tuple[float | None, float | None]:
    """NDCG@10 over users and seeds, of all and of tail targets; None without such users or if the ranks are gone."""
    from reaemb_bench.core.runs import ranks_of
    from reaemb_bench.evaluation.groups import user_groups
    from reaemb_bench.evaluation.metrics import ndcg

    overall, tail = [], []
    try:
        for ranks in ranks_of(run, store):
            values = ndcg(ranks.better, ranks.tied, _K)
            members = user_groups(ranks.popularity, ranks.history)["tail"]
            overall += [float(values.mean())] if len(values) else []
            tail += [float(values[members].mean())] if members.any() else []
    except UserError:
        return None, None
    return fmean(overall) if overall else None, fmean(tail) if tail else None


def _history_table(rows: Sequence[tuple[Run, float | None, float | None]]) -> Table:
    from reaemb_bench.report.table import LEAK, MISSING, number

    metrics = ("NDCG@10", "tail")
    headings = ("id", "when (UTC)", "name", "part of", "data", "seeds", *metrics, "git", "")
    table = plain_table(*headings, right=metrics, no_wrap=("id", *metrics))
    for run, *means in rows:
        revision, dash, changed = run.git.partition("-")
        when = f"{datetime.fromisoformat(run.finished):%Y-%m-%d %H:%M}"
        words = (run.name, run.part_of, run.data, ", ".join(map(str, run.seeds)))
        numbers = [MISSING if mean is None else number(mean) for mean in means]
        leaks = f"{LEAK} {', '.join(run.leaks)}" if run.leaks else ""
        git = f"{revision[:_GIT_CHARACTERS]}{dash}{changed}"
        table.add_row(run.id, when, *map(escape, words), *numbers, git, escape(leaks))
    if any(run.leaks for run, *_ in rows):
        table.caption = f"{LEAK} looks at held-out data on purpose: no fair comparison"
        table.caption_justify = "left"
    return table


def _show_what_differs(named: Mapping[str, Run]) -> None:
    """The settings in which the runs of a table differ; of very many, the first."""
    from reaemb_bench.report.page import what_differs

    differing = what_differs(named)
    if differing.rows:
        say(differing.heading, style="bold")
        table = plain_table("setting", *map(escape, differing.columns))
        for path, values in differing.rows[:_SETTINGS_SHOWN]:
            table.add_row(*map(escape, (path, *values)))
        show(table)
    if (more := len(differing.rows) - _SETTINGS_SHOWN) > 0:
        say(f"and {more} more; `reaemb-bench diff A B` shows all")


@machine_options("store")
def compare(
    machine: Machine,
    runs: RunNames,
    against: Against = None,
    by: Bins = None,
    metric: Metric = "ndcg",
    k: CutOff = _K,
    out: TablesFile = None,
    wide: Wide = None,
) -> None:
    """Show runs of the same data in one table, with the floors, and what differs from what.

    Everything is computed from the ranks in the store; nothing runs again. A name means its newest run.

    Examples:
    reaemb-bench compare quickstart 3f2a9c --against quickstart
    reaemb-bench compare quickstart reaemb_full --by popularity --metric hr --k 20
    """
    from reaemb_bench.report import page

    store = existing_store(machine)
    chosen = [run_from(store, wanted) for wanted in (*runs, *([] if against is None else [against]))]
    if len({run.id for run in chosen}) < 2:
        raise UserError("compare takes two different runs or more; `history` lists those that the store remembers")
    reference = None if against is None else chosen[-1]
    content = page.report(chosen, store, reference, by, metric, k, lists=False)
    _show_what_differs(content.compared.runs)
    show_tables(content.title, content.tables, out, wide)


@machine_options("store")
def report(
    machine: Machine,
    runs: RunNames,
    against: Against = None,
    by: Bins = None,
    metric: Metric = "ndcg",
    k: CutOff = _K,
    html: Annotated[Path | None, Option(metavar="FILE", help="Write a page that needs no network.")] = None,
    out: TablesFile = None,
    wide: Wide = None,
) -> None:
    """Report remembered runs: tables and curves in words, and as files tables or a page with plots.

    Nothing is computed again. Runs must be on the same data; a name means its newest run.

    Examples:
    reaemb-bench report quickstart --html report.html
    reaemb-bench report quickstart reaemb_full --against quickstart --out table.tex
    """
    from reaemb_bench.report import page

    store = existing_store(machine)
    chosen = [run_from(store, wanted) for wanted in runs]
    reference = None if against is None else run_from(store, against)
    content = page.report(chosen, store, reference, by, metric, k)
    _show_what_differs(content.compared.runs)
    show_tables(content.title, content.tables, out, wide)
    say("")
    for line in page.in_words(content, store):
        say(line)
    if html is not None:
        write_file(html, page.report_html(content, store), "--html")
        say(f"written to {html}")


@machine_options("store")
def diff(
    machine: Machine,
    first: Annotated[str, Argument(metavar="A", help="Id, name of a run, or recipe.", autocompletion=run_names)],
    second: Annotated[str, Argument(metavar="B", help="The other one.", autocompletion=run_names)],
) -> None:
    """Show which settings, results, versions and metrics differ between two runs.

    Examples:
    reaemb-bench diff quickstart 3f2a9c
    """
    from reaemb_bench.core import runs
    from reaemb_bench.report.page import read
    from reaemb_bench.report.results import K, results_table, verdicts
    from reaemb_bench.report.table import MISSING, signed

    store = existing_store(machine)
    before, after = both = run_from(store, first), run_from(store, second)
    if before.id == after.id:
        raise UserError(f"'{first}' and '{second}' are the same run, {before.id}")
    for letter, run in zip("AB", both, strict=True):
        leaks = f"leaks: {', '.join(run.leaks)}" if run.leaks else ""
        facts = (f"{run.id} {run.name}", run.data, run.finished, run.git and f"git {run.git}", leaks)
        say(f"{letter}  {', '.join(filter(None, facts))}")

    say("\nSettings", style="bold")
    table = plain_table("setting", "A", "B")
    for path, values in runs.changed_settings(both).items():
        table.add_row(*(escape(str(value)) for value in (path, *values)))
    show(table if table.row_count else "none differs")

    say("\nResults" if before.seeds == after.seeds else "\nResults of the first seeds", style="bold")
    table, pairs = plain_table("step", "A", "B", "why"), runs.paired_results(before, after)
    for step, pair in pairs.items():
        keys = ["—" if key is None else key[:KEY_CHARACTERS] for key in pair]
        why = "[dim]the same[/]" if pair[0] == pair[1] else escape(runs.reasons(pair, store))
        table.add_row(escape(step), *keys, why)
    show(table)
    for change, names in runs.changed_circumstances(pairs, store).items():
        say(f"{change} ({', '.join(names)})")

    say("\nMetrics", style="bold")
    try:
        compared = read(both, store)
    except UserError as error:
        say(f"not compared: {error}")
        return
    results = results_table("", compared.ranks, None, (), sampled=compared.sampled, compared=False)
    table = plain_table("metric", "A", "B", "B - A")
    for column, *cells in zip(results.columns, results.rows[0].cells, results.rows[1].cells, strict=True):
        earlier, later = (cell.value for cell in cells)
        shown = [MISSING if value is None else column.shown(value) for value in (earlier, later)]
        if shown[0] != shown[1]:
            gap = MISSING if earlier is None or later is None else signed(later - earlier)
            table.add_row(column.name, *shown, gap)
    show(table if table.row_count else "none differs")
    for line in verdicts(compared.ranks, {}, K):
        say(line)


@machine_options("store", "cache")
def export(
    machine: Machine,
    run: RunName,
    folder: Annotated[Path, Argument(metavar="FOLDER", help="A folder that is new or empty.")],
    vectors: WhichVectors = "reduced",
    form: Annotated[Format, Option("--format", help="Format of the vectors.")] = "safetensors",
    seed: Seed = None,
    encoder: Annotated[bool, Option(help="Also write the text encoder, if the run has one.")] = True,
) -> None:
    """Write a run's item vectors with ids, its encoder, a card and the recipe into a folder.

    Examples:
    reaemb-bench export quickstart my_vectors
    reaemb-bench export 3f2a9c my_vectors --vectors ranker --format parquet --no-encoder
    """
    from reaemb_bench.core.runs import find
    from reaemb_bench.report.export import export as export_to

    machine = machine.model_copy(update={"device": "cpu", "precision": "float32"})
    card = export_to(find(Store(machine.store), run), machine, folder, vectors, form, seed, encoder=encoder)
    with_encoder = ", the text encoder" if card.encoder is not None else ""
    written = card.chosen
    say(
        f"{written.corpus.items:,} vectors of width {written.vectors.width:,} of {card.run.name} ({card.run.id}), "
        f"seed {card.seed}, step {written.step}{with_encoder}: written to {folder}"
    )


@machine_options("store")
def neighbors(
    machine: Machine,
    run: RunName,
    title: Annotated[str, Argument(metavar="TITLE", help="An item's title, a part of it, or its id.")],
    count: Annotated[int, Option(min=1, help="How many items to show.")] = 10,
    vectors: WhichVectors = "reduced",
    seed: Seed = None,
    against: Against = None,
) -> None:
    """Show the items whose vectors have the highest cosine with that of an item.

    Examples:
    reaemb-bench neighbors quickstart "Star Wars"
    reaemb-bench neighbors quickstart "Star Wars" --against reaemb_full --count 5
    """
    from reaemb_bench.core.runs import find
    from reaemb_bench.report.export import find_item, item_with_id, nearest, run_vectors, seed_position

    store = Store(machine.store)
    remembered = [find(store, name) for name in (run, against) if name is not None]
    chosen = [run_vectors(source, store, vectors, seed_position(source, seed)) for source in remembered]
    corpus = chosen[0].corpus
    item = find_item(corpus, title)
    items = [item_with_id(other.corpus, corpus.item_keys[item]) for other in chosen]
    lists = [nearest(other.vectors, number, count) for other, number in zip(chosen, items, strict=True)]
    sources = " | ".join(f"{run.name}: vectors of {which.step}" for run, which in zip(remembered, chosen, strict=True))
    heading = f"{corpus.titles[item]} [{corpus.item_keys[item]}]"
    popularity = f"{int(corpus.popularity[item]):,} training interactions"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), title_justify="left")
    table.title = Text(f"Nearest to {printable(heading)}, {popularity}\n{printable(sources)}", style="bold")
    table.add_column("rank", justify="right")
    for _ in chosen:
        table.add_column("cosine", justify="right", no_wrap=True)
        table.add_column("id", overflow="fold")
        table.add_column("title", overflow="fold")
        table.add_column("training\ninteractions", justify="right")
    blocks = []
    for source, near in zip((other.corpus for other in chosen), lists, strict=True):
        keys, titles, counts = source.item_keys, source.titles, source.popularity
        cells = ((f"{hit.cosine:.4f}", keys[hit.item], titles[hit.item], f"{counts[hit.item]:,}") for hit in near)
        blocks.append([*cells])
    for rank, row in enumerate(zip_longest(*blocks, fillvalue=("",) * 4), 1):
        table.add_row(str(rank), *map(Text, map(printable, chain.from_iterable(row))))
    show(table)
