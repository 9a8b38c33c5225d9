"""The models that are timed: a tiny one, shapes of published ones with random weights, and SmolLM2's real weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.backbones.smollm2 import SmolLM2
from reaemb_bench.encoder.backbones.tiny import Tiny
from reaemb_bench.encoder.folder import Parts, assemble
from reaemb_bench.encoder.kinds import Backbone, Pooling
from reaemb_bench.encoder.language_model import Loaded, pack, quiet
from reaemb_bench.encoder.reasoners.latent_thought import LatentThought
from reaemb_bench.encoder.template import Template
from reaemb_bench.encoder.thought_model import ThoughtModel

Name = Literal["tiny", "smollm2-135m", "smollm2-135m-random", "qwen2.5-0.5b-random"]
NAMES: tuple[Name, ...] = get_args(Name)
SEED = 42

SMOLLM2: dict[str, Any] = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49_152,
}
QWEN: dict[str, Any] = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
}


def model(
    name: Name, corpus: Corpus, machine: Machine, layers: int | None, vocabulary: int | None, pooling: Pooling
) -> ThoughtModel:
    """A model with our default thought, in eval mode, without gradient.

    layers, vocabulary: fewer blocks and, where the weights are random, a smaller vocabulary than the published ones.
    Random weights come with a tokenizer of the corpus, which cuts texts into fewer tokens than the published ones.
    """
    parts = Parts(SmolLM2(layers=layers), LatentThought(), pooling, Template())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        thought_model = assemble(parts, _loaded(name, corpus, machine, layers, vocabulary))
    if thought_model.reasoner is not None:
        thought_model.reasoner.to(thought_model.device)
    return thought_model.eval().requires_grad_(False)


def _loaded(name: Name, corpus: Corpus, machine: Machine, layers: int | None, vocabulary: int | None) -> Loaded:
    if name == "smollm2-135m":
        return SmolLM2(layers=layers).load(Path(), machine)
    tiny = Tiny(layers=layers or 2) if name == "tiny" else Tiny(vocabulary=8000, hidden=8)
    loaded = _made(tiny, corpus, machine)
    if name == "tiny":
        return loaded
    shape = SMOLLM2 if name == "smollm2-135m-random" else QWEN
    changed = {"num_hidden_layers": layers, "vocab_size": vocabulary}
    return Loaded(
        _random(name, {**shape, **{key: value for key, value in changed.items() if value}}, machine), loaded.tokenizer
    )


def _made(backbone: Backbone, corpus: Corpus, machine: Machine) -> Loaded:
    with tempfile.TemporaryDirectory() as folder:
        backbone.prepare(corpus, Path(folder), machine, SEED)
        return backbone.load(Path(folder), machine)


def _random(name: Name, shape: dict[str, Any], machine: Machine) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    common = {"tie_word_embeddings": True, "max_position_embeddings": 8192, "bos_token_id": None, "pad_token_id": None}
    with quiet():
        causal_lm: Any
        if name == "smollm2-135m-random":
            causal_lm = LlamaForCausalLM(LlamaConfig(**shape, **common))
        else:
            causal_lm = Qwen2ForCausalLM(Qwen2Config(**shape, **common))
    pack(causal_lm)
    return causal_lm.to(machine.torch_device(), machine.torch_dtype()).eval()
