"""Encoder folders: what an `Encoder` artefact points at, opened as a `ThoughtModel` and written again.

encoder.json          specs of backbone, reasoner and pooling, the template, the temperature, names of the adapters
reasoner.safetensors  weights of the reasoner's network, if it has one
backbone/             weights and tokenizer of a backbone that was made here, else empty
adapter/, adapter-2/  LoRA adapters in peft's format, to be added in this order
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from reaemb_bench.core.artifacts import Corpus, Encoder
from reaemb_bench.core.component import Component, Context, Foreseen, Randomness, Step
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.backbones.bidirectional import Bidirectional
from reaemb_bench.encoder.backbones.shape import shape_of
from reaemb_bench.encoder.kinds import AnyBackbone, AnyPooling, AnyReasoner, Backbone, Pooling, Reasoner
from reaemb_bench.encoder.language_model import Loaded, add_thought_token, embedding_rms
from reaemb_bench.encoder.lora import load_adapters
from reaemb_bench.encoder.poolings import TextAndThought, Thought
from reaemb_bench.encoder.probe import fitting_reading
from reaemb_bench.encoder.template import PREFIX, SYSTEM_PROMPT, Template
from reaemb_bench.encoder.thought_model import ThoughtModel

FACTS = "encoder.json"
REASONER = "reasoner.safetensors"
BACKBONE = "backbone"


class LanguageModel(Step):
    """A language model with a freshly initialised reasoner, the encoder that all later steps train or use."""

    randomness: ClassVar[Randomness] = "embedder"
    version: ClassVar[int] = 2

    backbone: AnyBackbone
    """The language model."""
    reasoner: AnyReasoner = "latent-thought"  # type: ignore[assignment]
    """How latent thoughts are computed from the prompt."""
    pooling: AnyPooling = "mean"  # type: ignore[assignment]
    """How the last hidden states become one vector."""
    system_prompt: str = SYSTEM_PROMPT
    """System message of the chat template; empty for none."""
    prefix: str = PREFIX
    """The user's message before the item text."""
    max_length: int = Field(default=1024, ge=8)
    """Most tokens of a prompt, the thoughts and EOS counted; longer ones are cut on the right."""
    padding: Literal["left", "right"] = "left"
    """Side whose coordinates the reasoner's rotary embedding sees; matters only to `latent-thought-paper`."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """Width and thoughts. Raises RecipeError if pooling or backbone do not go with the reasoner."""
        thoughts, pooling = self.reasoner.thoughts, cast("Component", self.pooling).use
        if not thoughts and isinstance(self.pooling, Thought | TextAndThought):
            cure = "choose pooling 'mean' or 'last', or a reasoner"
            raise RecipeError(f"'{pooling}' pools thoughts, and llm.reasoner has none; {cure}", ("pooling",))
        if thoughts and isinstance(self.backbone, Bidirectional):
            raise RecipeError(
                'a bidirectional backbone has no place for thoughts; say reasoner = "none"', ("reasoner",)
            )
        shape = shape_of(self.backbone)
        return Foreseen(width=shape.width if shape else None, thoughts=thoughts)

    def run(self, corpus: Corpus, context: Context) -> Encoder:
        """The encoder, its reasoner drawn from the step's seed."""
        template = Template(self.system_prompt, self.prefix, self.max_length, self.padding)
        parts = Parts(self.backbone, self.reasoner, self.pooling, template)
        return make_encoder(parts, corpus, context)


@dataclass(frozen=True)
class Parts:
    """The components of an encoder. temperature: of its last contrastive training, None before any."""

    backbone: Backbone
    reasoner: Reasoner
    pooling: Pooling
    template: Template
    temperature: float | None = None
    adapters: tuple[str, ...] = ()


def read_parts(encoder: Encoder) -> Parts:
    """The parts that the folder's `encoder.json` describes. Raises UserError if it cannot be read."""
    file = encoder.folder / FACTS
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} does not describe an encoder ({error}); run again, and delete its folder if that does not help"
        ) from None
    return Parts(
        backbone=cast(Backbone, build("backbone", facts["backbone"])),
        reasoner=cast(Reasoner, build("reasoner", facts["reasoner"])),
        pooling=cast(Pooling, build("pooling", facts["pooling"])),
        template=Template(**facts["template"]),
        temperature=facts["temperature"],
        adapters=tuple(facts["adapters"]),
    )


def make_encoder(parts: Parts, corpus: Corpus, context: Context) -> Encoder:
    """A new encoder in the step's scratch folder: its backbone prepared, its reasoner drawn from the step's seed."""
    folder, machine, seed = context.scratch / "encoder", context.machine, context.seed
    inside = folder / BACKBONE
    # An interrupted run may have left a part of the folder.
    shutil.rmtree(folder, ignore_errors=True)
    inside.mkdir(parents=True)
    parts.backbone.prepare(corpus, inside, machine, seed)
    loaded = parts.backbone.load(inside, machine)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = assemble(parts, loaded)
    around = "\0".join(parts.template.around_text(loaded.tokenizer))
    context.note({"reading": str(model.reading), "template": sha256(around.encode()).hexdigest()[:16]})
    trained = model.trained_length
    if trained is not None and parts.template.max_length > trained:
        # Raises if positions are learned, before anything is computed.
        longest = max(map(len, model.tokenize(corpus.texts))) + model.thoughts + 1
        if longest > trained:
            name = type(loaded.model).__name__
            text = f"the longest prompt has {longest} tokens, and {name} was trained on at most {trained}"
            context.note({"warning: length": f"{text}; say llm.max_length = {trained}"})
    return write_encoder(folder, parts, {} if model.reasoner is None else model.reasoner.state_dict())


def write_encoder(folder: Path, parts: Parts, state_dict: Mapping[str, Tensor]) -> Encoder:
    """Describe `parts` in `folder` and write the reasoner's weights; backbone and adapters are already there."""
    folder.mkdir(parents=True, exist_ok=True)
    components = {"backbone": parts.backbone, "reasoner": parts.reasoner, "pooling": parts.pooling}
    facts = {
        **{name: cast(Component, component).spec() for name, component in components.items()},
        "template": asdict(parts.template),
        "temperature": parts.temperature,
        "adapters": list(parts.adapters),
    }
    (folder / FACTS).write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if state_dict:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}, folder / REASONER)
    return Encoder(folder)


def with_reasoner(encoder: Encoder, folder: Path, state_dict: Mapping[str, Tensor]) -> Encoder:
    """A copy of `encoder` in the new `folder`, with other weights of the reasoner's network."""
    _copy(encoder, folder)
    return write_encoder(folder, read_parts(encoder), state_dict)


def with_adapter(
    encoder: Encoder, folder: Path, model: ThoughtModel, adapter: Any, temperature: float | None
) -> Encoder:
    """A copy of `encoder` in the new `folder`, with a peft model's adapter added and `model`'s reasoner."""
    _copy(encoder, folder)
    parts = read_parts(encoder)
    name = "adapter" if not parts.adapters else f"adapter-{len(parts.adapters) + 1}"
    adapter.save_pretrained(folder / name, save_embedding_layers=False, selected_adapters=["default"])
    # The files shall depend on the adapter alone: peft writes the model's location, and sets in random order.
    (folder / name / "README.md").unlink(missing_ok=True)
    file = folder / name / "adapter_config.json"
    settings = {**json.loads(file.read_text(encoding="utf-8")), "base_model_name_or_path": None}
    ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in sorted(settings.items())}
    file.write_text(json.dumps(ordered, indent=1), encoding="utf-8")
    trained = replace(parts, temperature=temperature, adapters=(*parts.adapters, name))
    return write_encoder(folder, trained, {} if model.reasoner is None else model.reasoner.state_dict())


def open_encoder(encoder: Encoder, machine: Machine, *, merge: bool | None = None) -> ThoughtModel:
    """The model in an encoder folder, in eval mode and without any parameter that requires gradient.

    merge: whether adapters are added to the weights; None does so in float32. In bfloat16 adding rounds most of an
    adapter away, so adapters stay separate there, and the model computes exactly as it did in training.
    """
    parts = read_parts(encoder)
    loaded = parts.backbone.load(encoder.folder / BACKBONE, machine)
    model = assemble(parts, loaded)
    if merge is None:
        merge = loaded.model.dtype == torch.float32 and not getattr(loaded.model, "is_quantized", False)
    load_adapters(model, [encoder.folder / name for name in parts.adapters], merge=merge)
    if model.reasoner is not None:
        model.reasoner.load_state_dict(load_file(encoder.folder / REASONER))
        model.reasoner.to(model.device)
    return model.eval().requires_grad_(False)


def assemble(parts: Parts, loaded: Loaded) -> ThoughtModel:
    """The model over a loaded backbone, with a freshly initialised reasoner (from torch's global generator).

    Raises UserError if no way of reading prompts is right for it.
    """
    rms = embedding_rms(loaded)
    thoughts = parts.reasoner.thoughts
    thought_id = add_thought_token(loaded) if thoughts else None
    width = int(loaded.model.get_input_embeddings().weight.shape[1])
    model = ThoughtModel(
        loaded.model,
        loaded.tokenizer,
        parts.reasoner.build(width, rms),
        parts.pooling,
        parts.template,
        thoughts=thoughts,
        eos_id=int(loaded.tokenizer.eos_token_id),
        thought_id=thought_id,
        embedding_rms=rms,
        thought_scale=parts.reasoner.thought_scale(rms),
        think_template=getattr(parts.reasoner, "template", True),
        share=getattr(parts.pooling, "share", None) if getattr(parts.pooling, "learned", False) else None,
        bidirectional=loaded.bidirectional,
    )
    fitting_reading(model)
    return model


def _copy(encoder: Encoder, folder: Path) -> None:
    # An interrupted run may have left a part of the folder.
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(encoder.folder, folder)
