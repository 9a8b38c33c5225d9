"""`reaemb-bench export`: a run's item vectors and encoder for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reaemb_bench.cli.options import CachePlace, StorePlace, console, machine_from
from reaemb_bench.exporting.chosen import MEANING, Which
from reaemb_bench.vectors import Format

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
    from reaemb_bench.exporting.folder import export as export_to
    from reaemb_bench.runs import find
    from reaemb_bench.store import Store

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
