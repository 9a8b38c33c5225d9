"""Item vectors as one file in a format that others read, written block by block."""

from __future__ import annotations

import inspect
import json
import shutil
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Encoder, Ranker, Ranks, TestTargets, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import sync_tree
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build, find
from reaemb_bench.core.runs import Result, Run, artifact_of, floors_of, ranks_of
from reaemb_bench.core.store import Store
from reaemb_bench.data.interactions import About
from reaemb_bench.encoder.backbones.bidirectional import Bidirectional
from reaemb_bench.encoder.backbones.causal_lm import CausalLM
from reaemb_bench.encoder.kinds import Backbone
from reaemb_bench.report import render as markdown
from reaemb_bench.report.data_card import terms
from reaemb_bench.report.results import results_table
from reaemb_bench.report.table import Table
from reaemb_bench.report.vectors import IDS, STEM, Format

if TYPE_CHECKING:
    import torch

    from reaemb_bench.encoder.folder import Parts
    from reaemb_bench.encoder.thought_model import ThoughtModel


def write(folder: Path, chosen: Format, vectors: Vectors, ids: Sequence[str], titles: Sequence[str]) -> None:
    """Write vectors (items, width) and their items' ids and titles into `folder`.

    titles: empty where there are none. Parquet holds all in one file, and in memory once; of the others no more than
    a block is in memory.
    """
    if chosen == "parquet":
        _parquet(folder / f"{STEM}.parquet", vectors, ids, titles)
        return
    _FORMATS[chosen](folder / f"{STEM}.{chosen}", vectors)
    text = json.dumps({"ids": list(ids), "titles": list(titles)}, ensure_ascii=False, indent=1)
    (folder / IDS).write_text(f"{text}\n", encoding="utf-8")


def _npy(file: Path, vectors: Vectors) -> None:
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (vectors.items, vectors.width)}
        )
        for block in vectors.blocks():
            stream.write(np.ascontiguousarray(block, dtype="<f4").data)


def _safetensors(file: Path, vectors: Vectors) -> None:
    shape = [vectors.items, vectors.width]
    described = {STEM: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]}}
    header = json.dumps(described).encode()
    # Data begin at a multiple of 8.
    header += b" " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for block in vectors.blocks():
            stream.write(np.ascontiguousarray(block, dtype="<f4").data)


_FORMATS: Mapping[str, Callable[[Path, Vectors], None]] = {"npy": _npy, "safetensors": _safetensors}


def _parquet(file: Path, vectors: Vectors, ids: Sequence[str], titles: Sequence[str]) -> None:
    import polars

    kind = polars.Array(polars.Float32, vectors.width)
    rows = [polars.Series("vector", np.asarray(block), dtype=kind) for block in vectors.blocks()]
    column = polars.concat(rows, rechunk=False) if rows else polars.Series("vector", [], dtype=kind)
    named = {"id": list(ids), **({"title": list(titles)} if titles else {})}
    frame = polars.DataFrame(named, schema=dict.fromkeys(named, polars.String))
    frame.with_columns(column).write_parquet(file)


# Which of a run's item vectors are meant, and the encoder from which they came.


Which = Literal["reduced", "encoded", "ranker"]

MEANING: dict[Which, str] = {
    "reduced": "what the recommender was given",
    "encoded": "as the text encoder made them, before any reduction",
    "ranker": "as the trained recommender reads them; its scores are their inner products with a user's state",
}


@dataclass(frozen=True)
class Chosen:
    """Item vectors, the corpus whose items they are, and the step that made them with its key in the store."""

    corpus: Corpus
    vectors: Vectors
    step: str
    key: str


def place_of(run: Run, seed: int | None) -> int:
    """The place of a seed among the run's, the first where none is named. Raises UserError where it was not run."""
    if seed is None:
        return 0
    if seed not in run.seeds:
        raise UserError(f"run {run.id} ({run.name}) has no seed {seed}, but {', '.join(map(str, run.seeds))}")
    return run.seeds.index(seed)


def choose(run: Run, store: Store, which: Which, place: int) -> Chosen:
    """The vectors of all items of the corpus that a run made with the seed at `place`.

    Raises UserError where it made none, the store lost them, or they are not one an item.
    """
    asked = _until_encoded(run) if which == "encoded" else run
    kind = Ranker if which == "ranker" else Vectors
    made = _last(asked, kind.__name__, place)
    if made is None:
        raise UserError(f"run {run.id} ({run.name}) makes no {kind.__name__}; choose other --vectors")
    found = artifact_of(asked, store, kind, place)
    vectors = _of_ranker(run, found) if isinstance(found, Ranker) else found
    corpus: Corpus = artifact_of(asked, store, Corpus, place)
    if vectors.items != corpus.items:
        raise UserError(f"step '{made.step}' of run {run.id} made {vectors.items} vectors for {corpus.items} items")
    return Chosen(corpus, vectors, made.step, made.key)


def encoder_of(run: Run, store: Store, place: int) -> Encoder | None:
    """The encoder as it was when the first vectors were made; None where the recipe has none."""
    asked = _until_encoded(run)
    return artifact_of(asked, store, Encoder, place) if asked.key_of(Encoder, place) is not None else None


def encoded_by(run: Run, place: int) -> str:
    """Name of the step that made the first vectors, empty where none did."""
    made = _last(_until_encoded(run), Vectors.__name__, place)
    return made.step if made is not None else ""


def _of_ranker(run: Run, ranker: Ranker) -> Vectors:
    table = ranker.tensors.get("vectors")
    if table is None or table.ndim != 2:
        raise UserError(f"the recommender of run {run.id} ({run.name}) keeps no table of item vectors")
    return Vectors(table)


def _last(run: Run, artifact: str, place: int) -> Result | None:
    return next((each for each in reversed(run.results[place]) if artifact in each.makes), None)


def _until_encoded(run: Run) -> Run:
    """The run as it stood behind the first step that made vectors."""

    def until(results: tuple[Result, ...]) -> tuple[Result, ...]:
        first = next((place for place, each in enumerate(results) if Vectors.__name__ in each.makes), len(results))
        return results[: first + 1]

    return replace(run, results=tuple(map(until, run.results)))


# An encoder as a folder that transformers, peft and this package load.
#
# backbone/              weights and tokenizer, where the language model has no name under which others have it
# adapter/, adapter-2/   LoRA adapters in peft's format, to be merged in this order
# reasoner.safetensors   weights of the thought's network, where there is one, and in
# thought.json           what it takes to build that network
# encoder.json           specs of all parts, and the template of the prompts


ENCODER = "encoder"
"""The encoder's folder inside an exported one."""
_THOUGHT = "thought.json"


@dataclass(frozen=True)
class Exported:
    """What an exported encoder is made of.

    what: the language model, for people. model: its name, empty where its weights are inside. arguments: what
    transformers has to be told beside it. layers: how many of its blocks are kept, None where all are.
    """

    what: str
    model: str
    arguments: Mapping[str, str]
    layers: int | None
    adapters: tuple[str, ...]
    thoughts: int


def export_encoder(
    encoder: Encoder, folder: Path, corpus: Corpus, settings: Mapping[str, Any], machine: Machine
) -> Exported:
    """Write `encoder` into the new `folder`.

    settings: those of the step `encode` that made vectors with it, which become part of the template; empty where
    another step did. Raises UserError where a language model is needed and cannot be had.
    """
    from reaemb_bench.encoder.folder import BACKBONE, read_parts, write_encoder
    from reaemb_bench.encoder.language_model import save_pretrained

    shutil.copytree(encoder.folder, folder)
    parts = _as_encoded(read_parts(encoder), corpus, settings)
    write_encoder(folder, parts, {})
    backbone = _causal(parts.backbone)
    named = backbone if isinstance(backbone, CausalLM) else None
    whole = named is not None or (folder / BACKBONE / "config.json").is_file()
    if parts.reasoner.thoughts or not whole:
        loaded = parts.backbone.load(folder / BACKBONE, machine)
        if not whole:
            save_pretrained(loaded.model, loaded.tokenizer, folder / BACKBONE)
        if parts.reasoner.thoughts:
            _describe_thought(folder, loaded)
    if named is not None and parts.adapters and named.layers is None and named.gguf_file is None:
        _name_base(folder / parts.adapters[0], named)
    return Exported(
        what=named.model if named is not None else (inspect.getdoc(backbone) or "").partition("\n")[0],
        model=named.model if named is not None else "",
        arguments=_arguments(named),
        layers=named.layers if named is not None else None,
        adapters=parts.adapters,
        thoughts=parts.reasoner.thoughts,
    )


def load_encoder(place: str | Path, device: str = "auto") -> ThoughtModel:
    """The exported folder's encoder. `model.embed(model.tokens(model.tokenize(texts)))` is (texts, width).

    Raises UserError where there is none, its language model cannot be had, or it asks for code of a file.
    """
    from reaemb_bench.encoder.folder import open_encoder

    folder = Path(place) / ENCODER
    _facts(folder, "encoder.json")
    return open_encoder(Encoder(folder), Machine(device=device))


def load_thought(place: str | Path) -> torch.nn.Module:
    """The exported folder's network of the thought, without gradient.

    forward(states (n, L, d), mask (n, L), positions (n, L)) -> thoughts (n, j, d): last hidden states of left-padded
    prompts, 1 at real tokens, and each token's place among the real ones. Raises UserError where there is none, or
    it asks for code of a file.
    """
    from safetensors.torch import load_file

    folder = Path(place) / ENCODER
    facts = _facts(folder, _THOUGHT)
    made: Any = build("reasoner", facts["reasoner"])
    network: torch.nn.Module = made.build(facts["width"], facts["embedding_rms"])
    network.load_state_dict(load_file(folder / "reasoner.safetensors"))
    return network.eval().requires_grad_(False)


def _as_encoded(parts: Parts, corpus: Corpus, settings: Mapping[str, Any]) -> Parts:
    """The parts with what the step `encode` said about prompts in their template."""
    template = parts.template
    instruction = f"{corpus.instruction}\n" if settings.get("with_instruction") else ""
    return replace(
        parts,
        template=replace(
            template,
            prefix=template.prefix + instruction,
            padding=settings.get("padding", template.padding),
            max_length=settings.get("max_length", template.max_length),
        ),
    )


def _causal(backbone: Backbone) -> Backbone:
    """The language model itself, whatever its mask."""
    while isinstance(backbone, Bidirectional):
        backbone = backbone.of
    return backbone


def _arguments(named: CausalLM | None) -> dict[str, str]:
    if named is None:
        return {}
    given = {"revision": named.revision, "gguf_file": named.gguf_file}
    return {name: value for name, value in given.items() if value is not None}


def _describe_thought(folder: Path, loaded: Any) -> None:
    from reaemb_bench.encoder.language_model import embedding_rms

    spec = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))["reasoner"]
    width = int(loaded.model.get_input_embeddings().weight.shape[1])
    _write(folder / _THOUGHT, {"reasoner": spec, "width": width, "embedding_rms": embedding_rms(loaded)})


def _name_base(adapter: Path, base: CausalLM) -> None:
    """Tell peft on which model the adapter was trained."""
    file = adapter / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    _write(file, {**settings, "base_model_name_or_path": base.model, "revision": base.revision})


def _write(file: Path, facts: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _facts(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); export a run that has such a part again") from None
    # What somebody else exported must not run code of theirs.
    if code := next((use for use in _uses(facts) if ".py:" in use), None):
        raise UserError(f"{file} asks for the code of {code}, which is not run from an exported folder")
    return facts


def _uses(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (str(each) for name, each in value.items() if name == "use")
        for each in value.values():
            yield from _uses(each)
    elif isinstance(value, list):
        for each in value:
            yield from _uses(each)


# The card of exported vectors: what was run on what, how it tested, on what terms, and how to load it.


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


def render_card(card: Card, name: str, form: Format) -> str:
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
    return markdown.render_markdown(Table("", table.columns, table.rows, table.notes)).rstrip()


def _encoder(card: Card, encoder: Exported, inside: str, name: str) -> list[str]:
    lines = [
        f"`{ENCODER}/` holds the text encoder from which the vectors came. {_claim(card)}",
        "",
        "```python",
        "from reaemb_bench.report.export import load_encoder",
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
            "from reaemb_bench.report.export import load_thought",
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
    stored = run.key_of(TestTargets)
    test_targets: TestTargets | None = (
        artifact_of(run, store, TestTargets) if stored is not None and store.has(stored) else None
    )
    return results_table(
        run.title,
        {run.name: ranks_of(run, store)},
        floors_of(run, store),
        run.leaks,
        sampled=int(test_targets.candidates.shape[1]) if test_targets is not None else None,
        embedder_seed=tomllib.loads(run.recipe).get("embedder_seed"),
    )


# An exported folder: item vectors, their ids, the encoder, a card and the recipe; whole or not there at all.


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
        (draft / "README.md").write_text(render_card(card, folder.resolve().name, form), encoding="utf-8")
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
