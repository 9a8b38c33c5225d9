"""`reaemb-bench data describe`: a data card of what a recipe prepares."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reaemb_bench.artifacts import Corpus, Holdout, Signal
from reaemb_bench.cli.data import until_corpus
from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    CachePlace,
    Drops,
    RecipePlace,
    Sets,
    StorePlace,
    console,
    machine_from,
)
from reaemb_bench.errors import UserError
from reaemb_bench.evaluation.groups import SHORT, TAIL
from reaemb_bench.pipeline import Plan, derive_seed, execute, facts_of, fetch
from reaemb_bench.pipeline import plan as plan_recipe
from reaemb_bench.recipe import load
from reaemb_bench.store import Store
from reaemb_bench.tracking.terminal import watching

if TYPE_CHECKING:
    from reaemb_bench.cards.card import Card

Out = Annotated[Path | None, typer.Option("--out", help="Folder of the card; by default cards/ and the data's name.")]
Tail = Annotated[int, typer.Option("--tail", min=1, help="Training interactions that lift an item out of the tail.")]
Short = Annotated[int, typer.Option("--short", min=1, help="Items from which on a history is no short one.")]


def describe(
    recipe: RecipePlace = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    tail: Tail = TAIL,
    short: Short = SHORT,
    out: Out = None,
    store: StorePlace = None,
    cache: CachePlace = None,
) -> None:
    """Run the recipe's data step alone; print and write a data card: figures, long tail, lengths, terms of use."""
    from reaemb_bench.cards.card import write
    from reaemb_bench.cards.terminal import render

    machine = machine_from(store=store, cache=cache, mlflow="")
    read = load(recipe, sets or (), drops or ())
    planned = until_corpus(plan_recipe(read, read.seeds[0]))
    results = Store(machine.store)
    screen = console()
    with watching(planned, screen) as watch:
        execute(planned, results, machine, watch)
    card = _card(planned, results, tail, short)
    folder = out if out is not None else Path("cards") / _folder_name(card.name)
    try:
        write(card, folder)
    except OSError as error:
        raise UserError(f"the card cannot be written to {folder} ({error.strerror}); choose another --out") from None
    screen.print(render(card))
    screen.print(f"\nwritten to {folder}", markup=False, highlight=False, soft_wrap=True)


def _card(planned: Plan, results: Store, tail: int, short: int) -> Card:
    from reaemb_bench.cards.card import make_card
    from reaemb_bench.data.interactions import About

    job = planned.jobs[-1]
    corpus, signal = fetch(planned, results, Corpus), fetch(planned, results, Signal)
    holdout = fetch(planned, results, Holdout)
    if corpus is None or signal is None or holdout is None:
        raise UserError(f"step '{job.name}' makes no validation or no test targets, so there is no card to write")
    return make_card(
        corpus,
        signal,
        holdout,
        facts_of(planned, results, Corpus),
        about=getattr(getattr(job.step, "source", None), "about", About()),
        prepared=job.step.identity(),
        tail=tail,
        short=short,
        seed=derive_seed(planned.recipe.data_seed, "sequentiality"),
    )


def _folder_name(name: str) -> str:
    """The name with nothing in it that a folder's name may not have anywhere."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
