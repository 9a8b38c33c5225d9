"""Which run a person means."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reaemb_bench.artifacts import Ranks
from reaemb_bench.errors import UserError
from reaemb_bench.pipeline import plan
from reaemb_bench.recipe import load, locate
from reaemb_bench.runs import Run, as_run, find, history
from reaemb_bench.store import Store


def run_from(store: Store, wanted: str) -> Run:
    """The run with this id, start of an id or name; else that of this recipe, if its results are in the store.

    A name with the ending .toml is always a recipe. Raises UserError.
    """
    if wanted.endswith(".toml"):
        return _of_recipe(store, wanted)
    try:
        return find(store, wanted)
    except UserError:
        if _is_recipe(wanted):
            return _of_recipe(store, wanted)
        raise


def existing_store(root: Path) -> Store:
    """The store in this folder. Raises UserError where there is none."""
    if not root.is_dir():
        raise UserError(f"there is no store {root}; run a recipe first, or name another with --store")
    return Store(root)


def _is_recipe(wanted: str) -> bool:
    try:
        locate(wanted)
    except UserError:
        return False
    return True


def _of_recipe(store: Store, wanted: str) -> Run:
    read = load(wanted)
    made = as_run([plan(read, seed) for seed in read.seeds], store)
    for place, seed in enumerate(made.seeds):
        key = made.key_of(Ranks, place)
        if key is not None and not store.has(key):
            raise UserError(
                f"{store.root} holds no results of {wanted} with seed {seed}; run it first, "
                "or give the id of a run with other settings (`history` lists them)"
            )
    # Of results that no run remembers, nobody knows when and from which revision they came.
    return next((run for run in history(store) if run.id == made.id), replace(made, finished="", git=""))
