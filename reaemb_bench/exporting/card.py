"""The card of exported vectors: what was run on what, how it tested, on what terms, and how to load it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reaemb_bench.artifacts import Holdout, Ranks
from reaemb_bench.cards.wording import terms
from reaemb_bench.data.interactions import About
from reaemb_bench.errors import UserError
from reaemb_bench.exporting.chosen import MEANING, Chosen, Which
from reaemb_bench.exporting.encoder import ENCODER, Exported
from reaemb_bench.registry import find
from reaemb_bench.reporting import markdown
from reaemb_bench.reporting.results import results_table
from reaemb_bench.reporting.table import Table
from reaemb_bench.runs import Run, artifact_of, floors_of, ranks_of
from reaemb_bench.store import Store
from reaemb_bench.vectors import IDS, STEM, Format


@dataclass(frozen=True)
class Card:
    """Everything a card says, before anybody decides how.

    width: of a vector. step: what made the vectors. results: on test targets, of all seeds, None where there are
    none. again: the exported encoder gives the vectors of the step `encode` again. example: an id.
    """

    run: Run
    which: Which
    seed: int
    items: int
    users: int
    interactions: int
    width: int
    step: str
    about: About
    results: Table | None
    versions: Mapping[str, str]
    encoder: Exported | None
    again: bool
    example: str


def card_of(
    run: Run, store: Store, chosen: Chosen, which: Which, place: int, encoder: Exported | None, *, again: bool
) -> Card:
    """The card of vectors that were chosen from a run; place: of the seed."""
    return Card(
        run=run,
        which=which,
        seed=run.seeds[place],
        items=chosen.corpus.items,
        users=chosen.corpus.users,
        interactions=len(chosen.corpus.training.items),
        width=chosen.vectors.width,
        step=chosen.step,
        about=_about(run),
        results=_results(run, store),
        versions=store.manifest(chosen.key)["versions"],
        encoder=encoder,
        again=again,
        example=next(iter(chosen.corpus.item_keys), ""),
    )


def render(card: Card, name: str, form: Format) -> str:
    """The card as Markdown; name: of the folder in which it stands."""
    run = card.run
    ids = "beside them in the same file" if form == "parquet" else f"in `{IDS}`"
    lines = [*_front(card), f"# {' '.join(run.title.split())}: item vectors", ""]
    lines += [
        f"{card.items:,} item vectors of width {card.width:,} (float32) in `{STEM}.{form}`, their ids {ids}:",
        f"{MEANING[card.which]}.",
        "",
        *_loading(name, card.example),
        "",
        "## What was run",
        "",
        f"- recipe: {run.name} (`recipe.toml`), run {run.id}, finished {run.finished}",
        f"- vectors: of step `{card.step}`, seed {card.seed}",
        f"- data: {run.data}: {card.users:,} users, {card.items:,} items, {card.interactions:,} training interactions",
        f"- revision of the working folder: {run.git or 'not under git'}",
        f"- versions: {', '.join(f'{package} {version}' for package, version in card.versions.items())}",
        "",
        "## Test results",
        "",
        *_tested(card),
        "",
        "## Terms",
        "",
        *(f"- data, {what}: {text}" for what, text in terms(card.about).items()),
        *([f"- language model: {card.encoder.what}"] if card.encoder is not None else []),
        "- reaemb-bench is under the MIT licence, which says nothing of vectors, ids, titles and weights: the terms of "
        "the data and of the language model hold for what was made of them",
    ]
    if card.encoder is not None:
        lines += ["", "## The encoder", "", *_encoder(card, card.encoder, f"{name}/{ENCODER}", name)]
    return "\n".join(lines) + "\n"


def _front(card: Card) -> list[str]:
    """What hubs of models read at the head of a card."""
    lines = ["---", "library_name: reaemb-bench", "tags: [sequential-recommendation, item-embeddings]"]
    if card.encoder is not None and card.encoder.model:
        lines.append(f"base_model: {json.dumps(card.encoder.model)}")
    return [*lines, "---", ""]


def _loading(name: str, example: str) -> list[str]:
    return [
        "```python",
        "from reaemb_bench import load_vectors",
        f"items = load_vectors({_quoted(name)})",
        f"items.of({_quoted(example)})",
        "```",
    ]


def _tested(card: Card) -> list[str]:
    if card.results is None:
        return ["None: the recipe ranks no test targets, or the store lost them."]
    # The title stands above already.
    return ["The recommender on test targets, beside methods that learn nothing:", "", _untitled(card.results)]


def _untitled(table: Table) -> str:
    return markdown.render(Table("", table.columns, table.rows, table.notes)).rstrip()


def _encoder(card: Card, encoder: Exported, inside: str, name: str) -> list[str]:
    lines = [
        f"`{ENCODER}/` holds the text encoder from which the vectors came. {_claim(card)}",
        "",
        "```python",
        "from reaemb_bench.exporting.encoder import load_encoder",
        f"model = load_encoder({_quoted(name)})",
        'model.embed(model.tokens(model.tokenize(["title is ...; ..."])))',
        "```",
        "",
        f"Its language model{' with what was trained of it' if encoder.adapters else ''}, without reaemb-bench:",
        "",
        *_language_model(encoder, inside),
    ]
    if encoder.thoughts:
        lines += [
            "",
            f"Latent thoughts: {encoder.thoughts}, by the network in `reasoner.safetensors` with the settings in "
            "`thought.json`:",
            "",
            "```python",
            "from reaemb_bench.exporting.encoder import load_thought",
            f"thought = load_thought({_quoted(name)})",
            "```",
        ]
    return lines


def _language_model(encoder: Exported, inside: str) -> list[str]:
    named = "".join(f", {name}={_quoted(value)}" for name, value in encoder.arguments.items())
    base = f"{_quoted(encoder.model or f'{inside}/backbone')}{named}"
    lines = ["from peft import PeftModel"] if encoder.adapters else []
    lines += [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        f"tokenizer = AutoTokenizer.from_pretrained({base})",
        f"lm = AutoModelForCausalLM.from_pretrained({base})",
    ]
    if encoder.layers is not None:
        lines.append(f"lm.get_decoder().layers = lm.get_decoder().layers[:{encoder.layers}]")
    lines += [
        f"lm = PeftModel.from_pretrained(lm, {_quoted(f'{inside}/{each}')}).merge_and_unload()"
        for each in encoder.adapters
    ]
    return ["```python", *lines, "```"]


def _claim(card: Card) -> str:
    if not card.again:
        return "The step that made vectors with it did more than read texts, so it does not give them again."
    if card.which == "encoded":
        return "In the same precision it gives the vectors again, up to rounding."
    return f"It gives vectors as the step `encode` does; those here went through `{card.step}` after that."


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _about(run: Run) -> About:
    """What the source says of its terms; nothing where it is the reader's own, or its code is gone."""
    tables = [table for table in tomllib.loads(run.recipe).values() if isinstance(table, dict)]
    source: dict[str, Any] = next((table["source"] for table in tables if "source" in table), {})
    try:
        about = getattr(find("source", str(source.get("use", ""))), "about", About())
    except UserError:
        return About()
    return about if isinstance(about, About) else About()


def _results(run: Run, store: Store) -> Table | None:
    keys = [run.key_of(Ranks, place) for place in range(len(run.seeds))]
    if not all(key is not None and store.has(key) for key in keys):
        return None
    stored = run.key_of(Holdout)
    holdout: Holdout | None = artifact_of(run, store, Holdout) if stored is not None and store.has(stored) else None
    return results_table(
        run.title,
        {run.name: ranks_of(run, store)},
        floors_of(run, store),
        run.leaks,
        sampled=int(holdout.candidates.shape[1]) if holdout is not None else None,
        embedder_seed=tomllib.loads(run.recipe).get("embedder_seed"),
    )
