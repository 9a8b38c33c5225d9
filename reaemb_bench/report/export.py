"""An exported folder: item vectors with their ids, the encoder, a card and the recipe; whole or not there at all.

vectors.FORMAT, ids.json       see `reaemb_bench.report.vectors`
README.md, recipe.toml         the card, and the recipe with everything written out
encoder/backbone/              weights and tokenizer, if the language model has no name under which others have it
encoder/adapter/, adapter-2/   LoRA adapters in peft's format, to be merged in this order
encoder/reasoner.safetensors   weights of the network that makes thoughts, if there is one
encoder/thought.json           the settings of that network
encoder/encoder.json           specs of all parts, and the template of the prompts
"""

from __future__ import annotations

import difflib
import inspect
import json
import shutil
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Encoder, Ranker, Ranks, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import finish_tree
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plugins import only_stored_code
from reaemb_bench.core.registry import build, find
from reaemb_bench.core.runs import Result, Run, artifact_of, floors_of, identities_of, ranks_of
from reaemb_bench.core.store import Store
from reaemb_bench.core.text import printable
from reaemb_bench.data.interactions import About
from reaemb_bench.report.page import sampled_candidates
from reaemb_bench.report.recipe_tables import data_fingerprint, run_manifests
from reaemb_bench.report.render import render_markdown, template
from reaemb_bench.report.results import results_table
from reaemb_bench.report.vectors import IDS, STEM, Format, write_vectors

if TYPE_CHECKING:
    import torch

    from reaemb_bench.encoder.thought_model import ThoughtModel

Which = Literal["reduced", "encoded", "ranker"]

MEANING: dict[Which, str] = {
    "reduced": "what the recommender was given",
    "encoded": "as the text encoder made them, before any reduction",
    "ranker": "as the trained recommender reads them; its scores are their inner products with a user's state",
}
ENCODER = "encoder"
"""The encoder's folder inside an exported one."""
_THOUGHT = "thought.json"
_LISTED = 10
"""Most titles that an error names."""


@dataclass(frozen=True)
class RunVectors:
    """Item vectors of a run, the corpus whose items they are, and the step that made them with its key in the store."""

    corpus: Corpus
    vectors: Vectors
    step: str
    key: str


@dataclass(frozen=True)
class ExportedEncoder:
    """An encoder that was written into a folder.

    what: the language model in words. model: its name, empty if its weights are inside. arguments: what transformers
    has to be told with it. layers: how many of its blocks are kept, None for all.
    """

    what: str
    model: str
    arguments: Mapping[str, str]
    layers: int | None
    adapters: tuple[str, ...]
    thoughts: int


@dataclass(frozen=True)
class Exported:
    """What was written into a folder, and the seed whose it is."""

    run: Run
    chosen: RunVectors
    seed: int
    encoder: ExportedEncoder | None


def export(
    run: Run, machine: Machine, folder: Path, which: Which, form: Format, seed: int | None, *, encoder: bool
) -> Exported:
    """Writes a run's item vectors into the new or empty `folder`, and what it takes to use them elsewhere.

    encoder: also the run's text encoder, if it has one; only this needs torch. Raises UserError if the run has no such
    vectors, or the folder is not empty or cannot be written.
    """
    store = Store(machine.store)
    position = seed_position(run, seed)
    chosen = run_vectors(run, store, which, position)
    corpus = chosen.corpus
    encoded = _until_encoded(run)
    recipe = tomllib.loads(run.recipe)
    by = _last(encoded, Vectors, position)
    settings: dict[str, Any] = recipe.get(by.step if by is not None else "", {})
    if settings.get("use") != "encode":
        settings = {}
    with only_stored_code(identities_of(run, store)), _appearing(folder) as draft:
        titles = corpus.titles if corpus.titles != corpus.item_keys else ()
        write_vectors(draft, form, chosen.vectors, corpus.item_keys, titles)
        exported = None
        if encoder and encoded.key_of(Encoder, position) is not None:
            stored: Encoder = artifact_of(encoded, store, Encoder, position)
            exported = export_encoder(stored, draft / ENCODER, corpus, settings, machine)
        sources = [table["source"] for table in recipe.values() if isinstance(table, dict) and "source" in table]
        about = None
        # Of the user's own source, or if its code is gone, no terms are known.
        with suppress(UserError):
            about = getattr(find("source", str(sources[0].get("use", "") if sources else "")), "about", None)
        terms = about.terms() if isinstance(about, About) else About().terms()
        results = ""
        keys = [run.key_of(Ranks, of_seed) for of_seed in range(len(run.seeds))]
        if all(key is not None and store.has(key) for key in keys):
            table = results_table(
                # The title of the table stands above it already.
                "",
                {run.name: ranks_of(run, store)},
                floors_of(run, store),
                run.leaks,
                sampled=sampled_candidates(run, store),
                embedder_seed=recipe.get("embedder_seed"),
            )
            results = render_markdown(table).rstrip()
        name = folder.resolve().name
        card = template("card.md.j2").render(
            run=run,
            title=" ".join(printable(run.title).split()),
            chosen=chosen,
            which=which,
            meaning=MEANING[which],
            seed=run.seeds[position],
            encoder=exported,
            # The exported encoder gives the vectors of the step `encode` again.
            reproduces=exported is not None and bool(settings),
            terms=terms,
            results=results,
            versions=store.manifest(chosen.key)["versions"],
            data_sha256=data_fingerprint(run_manifests(run, store)),
            file=f"{STEM}.{form}",
            ids="next to them in the same file" if form == "parquet" else f"in `{IDS}`",
            folder=name,
            inside=f"{name}/{ENCODER}",
        )
        (draft / "README.md").write_text(card, encoding="utf-8")
        (draft / "recipe.toml").write_text(run.recipe, encoding="utf-8")
    return Exported(run, chosen, run.seeds[position], exported)


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
        finish_tree(draft)
        if target.is_dir():
            target.rmdir()
        draft.rename(target)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


# Which of a run's item vectors are meant.


def seed_position(run: Run, seed: int | None) -> int:
    """The position of a seed in the run, 0 if none is named. Raises UserError if it was not run."""
    if seed is None:
        return 0
    if seed not in run.seeds:
        raise UserError(f"run {run.id} ({run.name}) has no seed {seed}, but {', '.join(map(str, run.seeds))}")
    return run.seeds.index(seed)


def run_vectors(run: Run, store: Store, which: Which, position: int) -> RunVectors:
    """The vectors of all items of the corpus that a run made with the seed at `position`.

    Raises UserError if it made none, the store lost them, or there is not one for each item.
    """
    asked = _until_encoded(run) if which == "encoded" else run
    kind = Ranker if which == "ranker" else Vectors
    result = _last(asked, kind, position)
    if result is None:
        raise UserError(f"run {run.id} ({run.name}) makes no {kind.__name__}; choose other --vectors")
    vectors = artifact_of(asked, store, kind, position)
    if isinstance(vectors, Ranker):
        table = vectors.tensors.get("vectors")
        if table is None or table.ndim != 2:
            raise UserError(f"the recommender of run {run.id} ({run.name}) keeps no table of item vectors")
        vectors = Vectors(table)
    corpus: Corpus = artifact_of(asked, store, Corpus, position)
    if vectors.items != corpus.items:
        raise UserError(f"step '{result.step}' of run {run.id} made {vectors.items} vectors for {corpus.items} items")
    return RunVectors(corpus, vectors, result.step, result.key)


def _until_encoded(run: Run) -> Run:
    """The run as it was after the first step that made vectors."""

    def until(results: tuple[Result, ...]) -> tuple[Result, ...]:
        makers = (position for position, result in enumerate(results) if Vectors.__name__ in result.makes)
        return results[: next(makers, len(results)) + 1]

    return replace(run, results=tuple(map(until, run.results)))


def _last(run: Run, artifact: type, position: int) -> Result | None:
    return next((result for result in reversed(run.results[position]) if artifact.__name__ in result.makes), None)


# Items by title, and the items whose vectors are nearest to one.


@dataclass(frozen=True)
class Neighbor:
    """An item by its number, and the cosine of its vector with the one asked about."""

    item: int
    cosine: float


def find_item(corpus: Corpus, wanted: str) -> int:
    """The number of the item with this id, else this title, else the only one whose title contains `wanted`.

    If there is none, the title that is spelt most alike is taken. Raises UserError if several items are meant, naming
    them, or none is.
    """
    if wanted in corpus.item_keys:
        return item_with_id(corpus, wanted)
    titles = [title.casefold() for title in corpus.titles]
    sought = wanted.casefold()
    items = [item for item, title in enumerate(corpus.titles) if title == wanted]
    items = items or [item for item, title in enumerate(titles) if title == sought]
    items = items or [item for item, title in enumerate(titles) if sought.strip() and sought.strip() in title]
    if not items:
        alike = difflib.get_close_matches(sought, titles, n=1, cutoff=0.6)
        items = [item for item, title in enumerate(titles) if title in alike]
    if not items:
        raise UserError(f"no item of {corpus.name} has the id or a title like '{wanted}'; give a part of a title")
    if len(items) > 1:
        named = ", ".join(f"{corpus.titles[item]} [{corpus.item_keys[item]}]" for item in items[:_LISTED])
        more = f" and {len(items) - _LISTED:,} more" if len(items) > _LISTED else ""
        raise UserError(f"'{wanted}' may mean {len(items):,} items: {named}{more}; give more of it, or an [id]")
    return items[0]


def item_with_id(corpus: Corpus, key: str) -> int:
    """The number of the item with this id. Raises UserError if there is none."""
    if key not in corpus.item_keys:
        raise UserError(f"no item of {corpus.name} has the id '{key}'")
    return corpus.item_keys.index(key)


def nearest(vectors: Vectors, item: int, count: int) -> list[Neighbor]:
    """The `count` other items with the highest cosine, highest first, the lower number first if they are equal.

    Items whose vector is all zeros have no direction and are left out. Raises UserError if `item` is one of them.
    """
    if item >= vectors.items:
        raise UserError(f"there are {vectors.items} vectors and none for item {item}")
    start, query = 0, np.zeros(0)
    for block in vectors.blocks():
        if start <= item < start + len(block):
            query = np.asarray(block[item - start], dtype=np.float64)
        start += len(block)
    length = float(np.linalg.norm(query))
    if not length:
        raise UserError("the vector of this item is all zeros, so nothing is near it")
    cosines = np.full(vectors.items, -np.inf)
    start = 0
    for block in vectors.blocks():
        rows = block.astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1)
        np.divide(rows @ (query / length), lengths, out=cosines[start : start + len(rows)], where=lengths > 0)
        start += len(rows)
    cosines[item] = -np.inf
    order = np.argsort(-cosines, kind="stable")[:count]
    return [Neighbor(int(other), float(cosines[other])) for other in order if np.isfinite(cosines[other])]


# An encoder as a folder that transformers, peft and this package load.


def export_encoder(
    encoder: Encoder, folder: Path, corpus: Corpus, settings: Mapping[str, Any], machine: Machine
) -> ExportedEncoder:
    """Writes `encoder` into the new `folder`.

    settings: of the step `encode` that made vectors with it, which become part of the template; empty if another step
    did. Raises UserError if a language model is needed and cannot be had.
    """
    from reaemb_bench.encoder.backbones.bidirectional import Bidirectional
    from reaemb_bench.encoder.backbones.causal_lm import CausalLM
    from reaemb_bench.encoder.folder import BACKBONE, read_parts, write_encoder
    from reaemb_bench.encoder.language_model import embedding_rms, save_pretrained

    shutil.copytree(encoder.folder, folder)
    parts = read_parts(encoder)
    prompts = replace(
        parts.template,
        prefix=parts.template.prefix + (f"{corpus.instruction}\n" if settings.get("with_instruction") else ""),
        padding=settings.get("padding", parts.template.padding),
        max_length=settings.get("max_length", parts.template.max_length),
    )
    parts = replace(parts, template=prompts)
    write_encoder(folder, parts, {})
    backbone = parts.backbone
    while isinstance(backbone, Bidirectional):
        backbone = backbone.of
    named = backbone if isinstance(backbone, CausalLM) else None
    whole = named is not None or (folder / BACKBONE / "config.json").is_file()
    if parts.reasoner.thoughts or not whole:
        loaded = parts.backbone.load(folder / BACKBONE, machine)
        if not whole:
            save_pretrained(loaded.model, loaded.tokenizer, folder / BACKBONE)
        if parts.reasoner.thoughts:
            spec = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))["reasoner"]
            width = int(loaded.model.get_input_embeddings().weight.shape[1])
            _write(folder / _THOUGHT, {"reasoner": spec, "width": width, "embedding_rms": embedding_rms(loaded)})
    if named is None:
        what = (inspect.getdoc(backbone) or "").partition("\n")[0]
        return ExportedEncoder(what, "", {}, None, parts.adapters, parts.reasoner.thoughts)
    if parts.adapters and named.layers is None and named.gguf_file is None:
        # peft wants to know on which model the first adapter was trained.
        file = folder / parts.adapters[0] / "adapter_config.json"
        trained_on = {"base_model_name_or_path": named.model, "revision": named.revision}
        _write(file, {**json.loads(file.read_text(encoding="utf-8")), **trained_on})
    arguments = {"revision": named.revision, "gguf_file": named.gguf_file}
    return ExportedEncoder(
        what=named.model,
        model=named.model,
        arguments={name: value for name, value in arguments.items() if value is not None},
        layers=named.layers,
        adapters=parts.adapters,
        thoughts=parts.reasoner.thoughts,
    )


def _write(file: Path, facts: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load_encoder(path: str | Path, device: str = "auto") -> ThoughtModel:
    """The exported folder's encoder. `model.embed(model.tokens(model.tokenize(texts)))` is (texts, width).

    Raises UserError if there is none, its language model cannot be had, or it asks for the code of a file.
    """
    from reaemb_bench.encoder.folder import open_encoder

    folder = Path(path) / ENCODER
    _read(folder / "encoder.json")
    return open_encoder(Encoder(folder), Machine(device=device))


def load_thought(path: str | Path) -> torch.nn.Module:
    """The exported folder's network of the thought, without gradient.

    forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d): last hidden states of left-padded
    prompts, 1 at real tokens, and each token's position among the real ones. Raises UserError if there is none, or it
    asks for the code of a file.
    """
    from safetensors.torch import load_file

    folder = Path(path) / ENCODER
    facts = _read(folder / _THOUGHT)
    reasoner: Any = build("reasoner", facts["reasoner"])
    network: torch.nn.Module = reasoner.build(facts["width"], facts["embedding_rms"])
    network.load_state_dict(load_file(folder / "reasoner.safetensors"))
    return network.eval().requires_grad_(False)


def _read(file: Path) -> dict[str, Any]:
    def uses(value: Any) -> Iterator[str]:
        """The names of all components in nested tables."""
        if isinstance(value, Mapping):
            yield from (str(name) for key, name in value.items() if key == "use")
        nested = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        for inside in nested:
            yield from uses(inside)

    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); export a run that has such a part again") from None
    # What somebody else exported must not run code of theirs.
    if code := next((use for use in uses(facts) if ".py:" in use), None):
        raise UserError(f"{file} asks for the code of {code}, which is not run from an exported folder")
    return facts
