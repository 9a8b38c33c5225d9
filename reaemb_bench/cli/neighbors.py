"""`reaemb-bench neighbors`: which items lie nearest to an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from reaemb_bench.cli.export import RunPlace, Seed, WhichVectors
from reaemb_bench.cli.options import StorePlace, console, machine_from

if TYPE_CHECKING:
    from reaemb_bench.exporting.chosen import Chosen, Which
    from reaemb_bench.exporting.nearest import Near
    from reaemb_bench.store import Store

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
    from reaemb_bench.exporting.nearest import find_item, item_with_id, nearest
    from reaemb_bench.store import Store

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
    from reaemb_bench.exporting.chosen import choose, place_of
    from reaemb_bench.runs import find

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
