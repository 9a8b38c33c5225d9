"""How much memory the steps of the language model would take, estimated before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan
from reaemb_bench.core.store import Store
from reaemb_bench.encoder.backbones.bidirectional import Bidirectional
from reaemb_bench.encoder.backbones.causal_lm import CausalLM
from reaemb_bench.encoder.backbones.smollm2 import SmolLM2
from reaemb_bench.encoder.backbones.tiny import Tiny
from reaemb_bench.encoder.embed import Encode
from reaemb_bench.encoder.folder import LanguageModel
from reaemb_bench.encoder.lrcl import Contrast
from reaemb_bench.encoder.memory import Shape, free_memory, micro_batch
from reaemb_bench.rl.crrl import Reinforcement

_CHARACTERS = 3
"""Characters of text for each token: fewer than in English prose, so that estimates err upwards."""
_FLOAT32 = 4


def memory_lines(plan: Plan, results: Store, machine: Machine) -> list[str]:
    """What each language-model step takes at most: weights, one micro-batch of prompts, and what it keeps of all items.

    Prompts are as long as the texts need if the corpus is in the store, else as long as the recipe allows. Returns no
    line if the plan has no such step or the model is not on this machine.
    """
    llm = next((job.step for job in plan.jobs if isinstance(job.step, LanguageModel)), None)
    shape = None if llm is None else shape_of(llm.backbone, 2 if machine.precision == "bfloat16" else _FLOAT32)
    if llm is None or shape is None:
        return []
    job = plan.job_of(Corpus)
    corpus = fetch(plan, results, Corpus) if job is not None and results.has(job.key) else None
    before = len(llm.system_prompt) + len(llm.prefix)
    lengths = [(before + len(text)) // _CHARACTERS for text in corpus.texts] if corpus else []
    longest = min(llm.max_length, max(lengths, default=llm.max_length))
    lines = []
    for job in plan.jobs:
        step, learns, kept = job.step, isinstance(job.step, Contrast), ""
        if isinstance(step, Encode):
            kept = _gigabytes(len(lengths) * shape.width * _FLOAT32)
        elif isinstance(step, Reinforcement):
            tokens = sum(min(step.max_length or longest, longest, length) for length in lengths)
            kept = f"{_gigabytes(min(tokens * shape.cached_token, int(step.cache_gb * 1e9)))} on disk"
        elif not learns:
            continue
        if kept:
            kept = f", kept of all items {kept if lengths else 'unknown until the data are prepared'}"
        size = micro_batch(machine, shape, longest, learns=learns)
        at_once = _gigabytes(size * longest * (shape.learnt_token if learns else shape.read_token))
        lines.append(f"  {job.name}: weights {_gigabytes(shape.weights)}, {size} prompts at once {at_once}{kept}")
    memory = free_memory(machine.device_name())
    free = f", {_gigabytes(memory)} free" if memory else ""
    return [f"memory, at most about (prompts of up to {longest} tokens{free}):", *lines] if lines else []


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def shape_of(backbone: object, kept: int) -> Shape | None:
    """Sizes of a backbone whose numbers take `kept` bytes; None for a model of the hub or of a plug-in."""
    if isinstance(backbone, Bidirectional):
        return shape_of(backbone.of, kept)
    if isinstance(backbone, Tiny):
        width = backbone.hidden
        return Shape(width, 2 * width, backbone.layers, 4, 2, width // 4, backbone.vocabulary, True, kept)
    if isinstance(backbone, SmolLM2):
        return Shape(576, 1536, backbone.layers or 30, 9, 3, 64, 49_152, True, kept)
    if not isinstance(backbone, CausalLM):
        return None
    try:
        facts = json.loads((Path(backbone.model).expanduser() / "config.json").read_text("utf-8"))
        config = SimpleNamespace(**{"tie_word_embeddings": True, **facts})
        config.get_text_config = lambda: config
        config.num_hidden_layers = backbone.layers or config.num_hidden_layers
        return Shape.of(config, kept)
    except (OSError, ValueError, AttributeError):
        return None
