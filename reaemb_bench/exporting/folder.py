"""An exported folder: item vectors, their ids, the encoder, a card and the recipe; whole or not there at all."""

from __future__ import annotations

import shutil
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reaemb_bench.errors import UserError
from reaemb_bench.exporting.card import Card, card_of, render
from reaemb_bench.exporting.chosen import Which, choose, encoded_by, encoder_of, place_of
from reaemb_bench.exporting.encoder import ENCODER, export_encoder
from reaemb_bench.exporting.files import write
from reaemb_bench.files import sync_tree
from reaemb_bench.machine import Machine
from reaemb_bench.runs import Run
from reaemb_bench.store import Store
from reaemb_bench.vectors import Format


def export(
    run: Run, machine: Machine, folder: Path, which: Which, form: Format, seed: int | None, *, encoder: bool
) -> Card:
    """Write a run's item vectors into the new or empty `folder`, and what it takes to use them elsewhere.

    encoder: the run's text encoder too, where it has one; this alone needs torch. Raises UserError where the run has
    no such vectors, or the folder is not empty or cannot be written.
    """
    store = Store(machine.store)
    place = place_of(run, seed)
    chosen = choose(run, store, which, place)
    corpus = chosen.corpus
    with _appearing(folder) as draft:
        titles = corpus.titles if corpus.titles != corpus.item_keys else ()
        write(draft, form, chosen.vectors, corpus.item_keys, titles)
        found = encoder_of(run, store, place) if encoder else None
        exported = (
            export_encoder(found, draft / ENCODER, corpus, _settings(run, place), machine)
            if found is not None
            else None
        )
        again = exported is not None and bool(_settings(run, place))
        card = card_of(run, store, chosen, which, place, exported, again=again)
        (draft / "README.md").write_text(render(card, folder.resolve().name, form), encoding="utf-8")
        (draft / "recipe.toml").write_text(run.recipe, encoding="utf-8")
        _as_readable_as(draft / "recipe.toml", draft)
    return card


def _settings(run: Run, place: int) -> dict[str, Any]:
    """Those of the step `encode`, where it is what made the first vectors."""
    table: dict[str, Any] = tomllib.loads(run.recipe).get(encoded_by(run, place), {})
    return table if table.get("use") == "encode" else {}


def _as_readable_as(file: Path, folder: Path) -> None:
    """Weights are written as their owner's alone; here they are to be passed on."""
    for each in folder.rglob("*"):
        if each.is_file():
            each.chmod(file.stat().st_mode)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """An empty folder to fill; on a clean exit it becomes `folder`, otherwise it vanishes."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"the folder {folder} is not empty and is left as it is; choose another")
    target = folder.resolve()
    draft = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        draft.mkdir(parents=True)
        yield draft
        sync_tree(draft)
        if target.is_dir():
            target.rmdir()
        draft.rename(target)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
