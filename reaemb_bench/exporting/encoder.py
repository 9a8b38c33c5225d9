"""An encoder as a folder that transformers, peft and this package load.

backbone/              weights and tokenizer, where the language model has no name under which others have it
adapter/, adapter-2/   LoRA adapters in peft's format, to be merged in this order
reasoner.safetensors   weights of the thought's network, where there is one, and in
thought.json           what it takes to build that network
encoder.json           specs of all parts, and the template of the prompts
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reaemb_bench.artifacts import Corpus, Encoder
from reaemb_bench.backbones.bidirectional import Bidirectional
from reaemb_bench.backbones.causal_lm import CausalLM
from reaemb_bench.errors import UserError
from reaemb_bench.kinds import Backbone
from reaemb_bench.machine import Machine
from reaemb_bench.registry import build

if TYPE_CHECKING:
    import torch

    from reaemb_bench.encoding.folder import Parts
    from reaemb_bench.encoding.model import ThoughtModel

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
    from reaemb_bench.encoding.backbone import save_pretrained
    from reaemb_bench.encoding.folder import BACKBONE, read_parts, write_encoder

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
    from reaemb_bench.encoding.folder import open_encoder

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
    from reaemb_bench.encoding.backbone import embedding_rms

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
