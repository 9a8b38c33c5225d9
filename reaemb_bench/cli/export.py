"""Verbs about item vectors: `export` writes them for use elsewhere, `neighbors` shows which items are similar."""

from __future__ import annotations

from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated, Literal

from rich import box
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from reaemb_bench.cli.options import Against, RunName, machine_options
from reaemb_bench.cli.screen import say, show
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.store import Store
from reaemb_bench.core.text import printable

Vectors = Literal["reduced", "encoded", "ranker"]
Format = Literal["safetensors", "parquet", "npy"]

_WHICH = (
    "reduced: what the recommender was given; encoded: before any reduction; ranker: as the trained recommender reads "
    "them, to be multiplied with a user's state."
)
WhichVectors = Annotated[Vectors, Option("--vectors", help=_WHICH)]
Seed = Annotated[int | None, Option("--seed", help="Which of the run's seeds; by default its first.")]


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
