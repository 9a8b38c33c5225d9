"""`reaemb-bench export`: a run's item vectors and encoder for use elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from reaemb_bench.cli.options import CachePlace, StorePlace, console, machine_from
from reaemb_bench.report.export import MEANING, Which
from reaemb_bench.report.vectors import Format

if TYPE_CHECKING:
    from reaemb_bench.core.store import Store
    from reaemb_bench.report.export import Chosen
    from reaemb_bench.report.neighbors import Near


RunPlace = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, the start of one, or a recipe's name.")]
WhichVectors = Annotated[
    Which, typer.Option("--vectors", help="; ".join(f"{name}: {meaning}" for name, meaning in MEANING.items()) + ".")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Which of the run's seeds; by default its first.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that is new or empty.")]
Form = Annotated[Format, typer.Option("--format", help="How the vectors are written.")]
WithEncoder = Annotated[
    bool, typer.Option("--encoder/--no-encoder", help="Also write the text encoder, where the run has one.")
]


def export(
    run: RunPlace,
    folder: Folder,
    vectors: WhichVectors = "reduced",
    form: Form = "safetensors",
    seed: Seed = None,
    encoder: WithEncoder = True,
    store: StorePlace = None,
    cache: CachePlace = None,
) -> None:
    """Write a run's item vectors with ids, its encoder, a card and the recipe into a folder."""
    from reaemb_bench.core.runs import find
    from reaemb_bench.core.store import Store
    from reaemb_bench.report.export import export as export_to

    machine = machine_from(device="cpu", precision="float32", store=store, cache=cache, mlflow="")
    card = export_to(find(Store(machine.store), run), machine, folder, vectors, form, seed, encoder=encoder)
    inside = ", the text encoder" if card.encoder is not None else ""
    console().print(
        f"{card.items:,} vectors of width {card.width:,} of {card.run.name} ({card.run.id}), seed {card.seed}, step "
        f"{card.step}{inside}: written to {folder}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


# `reaemb-bench neighbors`: which items lie nearest to an item.


Title = Annotated[str, typer.Argument(metavar="TITLE", help="An item's title, a part of it, or its id.")]
Count = Annotated[int, typer.Option("--count", min=1, help="How many items to show.")]
Against = Annotated[str | None, typer.Option("--against", metavar="RUN", help="Another run, shown beside this one.")]


@dataclass(frozen=True)
class _Found:
    """What lies near an item in one run's vectors."""

    run: str
    chosen: Chosen
    near: list[Near]


def neighbors(
    run: RunPlace,
    title: Title,
    count: Count = 10,
    vectors: WhichVectors = "reduced",
    seed: Seed = None,
    against: Against = None,
    store: StorePlace = None,
) -> None:
    """Show the items whose vectors have the highest cosine with that of an item."""
    from reaemb_bench.core.store import Store
    from reaemb_bench.report.neighbors import find_item, item_with_id, nearest

    results = Store(machine_from(store=store, mlflow="").store)
    name, chosen = _chosen(results, run, vectors, seed)
    item = find_item(chosen.corpus, title)
    found = [_Found(name, chosen, nearest(chosen.vectors, item, count))]
    if against is not None:
        name, other = _chosen(results, against, vectors, seed)
        there = item_with_id(other.corpus, chosen.corpus.item_keys[item])
        found.append(_Found(name, other, nearest(other.vectors, there, count)))
    console().print(_table(found, item))


def _chosen(store: Store, run: str, which: Which, seed: int | None) -> tuple[str, Chosen]:
    from reaemb_bench.core.runs import find
    from reaemb_bench.report.export import choose, place_of

    read = find(store, run)
    return read.name, choose(read, store, which, place_of(read, seed))


def _table(found: list[_Found], item: int) -> Table:
    corpus = found[0].chosen.corpus
    seen = f"{int(corpus.popularity[item]):,} training interactions"
    vectors = " | ".join(f"{each.run}: vectors of {each.chosen.step}" for each in found)
    made = Table(
        title=Text(f"Nearest to {corpus.titles[item]} [{corpus.item_keys[item]}], {seen}\n{vectors}", style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1),
    )
    made.add_column("rank", justify="right")
    for _ in found:
        made.add_column("cosine", justify="right", no_wrap=True)
        made.add_column("id", overflow="fold")
        made.add_column("title", overflow="fold")
        made.add_column("training\ninteractions", justify="right")
    for rank in range(max(len(each.near) for each in found)):
        made.add_row(str(rank + 1), *(cell for each in found for cell in _cells(each, rank)))
    return made


def _cells(found: _Found, rank: int) -> list[Text]:
    if rank >= len(found.near):
        return [Text("")] * 4
    near, corpus = found.near[rank], found.chosen.corpus
    return [
        Text(f"{near.cosine:.4f}"),
        Text(corpus.item_keys[near.item]),
        Text(corpus.titles[near.item]),
        Text(f"{int(corpus.popularity[near.item]):,}"),
    ]
