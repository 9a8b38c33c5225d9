"""How much memory the steps of the language model would take, estimated before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Need:
    """What a step takes, in bytes: weights, one micro-batch of prompts, and what it keeps of all items.

    kept is None if it is not known how many items there are. on_disk: whether that lies in a file.
    """

    step: str
    weights: int
    prompts: int
    at_once: int
    kept: int | None
    on_disk: bool


@dataclass(frozen=True)
class Estimate:
    """The needs of a plan's steps. longest: most tokens of a prompt; free: bytes of memory, 0 if unknown."""

    needs: tuple[Need, ...]
    longest: int
    free: int


def estimate(plan: Plan, results: Store, machine: Machine) -> Estimate | None:
    """What the plan's language-model steps take, or None if it has none or the model is not on this machine.

    Prompts are as long as the texts need if the corpus is in the store, else as long as the recipe allows.
    """
    llm = next((job.step for job in plan.jobs if isinstance(job.step, LanguageModel)), None)
    shape = None if llm is None else shape_of(llm.backbone, 2 if machine.precision == "bfloat16" else _FLOAT32)
    if llm is None or shape is None:
        return None
    job = plan.job_of(Corpus)
    corpus = fetch(plan, results, Corpus) if job is not None and results.has(job.key) else None
    before = len(llm.system_prompt) + len(llm.prefix)
    lengths = [(before + len(text)) // _CHARACTERS for text in corpus.texts] if corpus else []
    longest = min(llm.max_length, max(lengths, default=llm.max_length))
    needs = []
    for job in plan.jobs:
        step, learns = job.step, isinstance(job.step, Contrast)
        if not isinstance(step, Contrast | Reinforcement | Encode):
            continue
        kept: int | None = 0
        if isinstance(step, Encode):
            kept = len(lengths) * shape.width * _FLOAT32 or None
        elif isinstance(step, Reinforcement):
            tokens = sum(min(step.max_length or longest, longest, length) for length in lengths)
            kept = min(tokens * shape.cached_token, int(step.cache_gb * 1e9)) if lengths else None
        size = micro_batch(machine, shape, longest, learns=learns)
        at_once = size * longest * (shape.learnt_token if learns else shape.read_token)
        needs.append(Need(job.name, shape.weights, size, at_once, kept, isinstance(step, Reinforcement)))
    return Estimate(tuple(needs), longest, free_memory(machine.device_name())) if needs else None


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


def memory_lines(estimate: Estimate) -> Iterator[str]:
    """The estimate in lines."""

    def gigabytes(count: int | None) -> str:
        if count is None:
            return "unknown until the data are prepared"
        return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.1f} MB"

    free = f", {gigabytes(estimate.free)} free" if estimate.free else ""
    yield f"memory, at most about (prompts of up to {estimate.longest} tokens{free}):"
    for need in estimate.needs:
        on_disk = " on disk" if need.on_disk and need.kept is not None else ""
        kept = "" if need.kept == 0 else f", kept of all items {gigabytes(need.kept)}{on_disk}"
        prompts = f"{need.prompts} prompts at once {gigabytes(need.at_once)}"
        yield f"  {need.step}: weights {gigabytes(need.weights)}, {prompts}{kept}"
