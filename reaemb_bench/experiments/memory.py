"""What the steps of the language model would take of memory, told before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
"""Of text, that a token stands for: fewer than in English prose, so that estimates err upwards."""
_FLOAT32 = 4


@dataclass(frozen=True)
class Need:
    """What a step takes, in bytes: weights, one micro-batch of prompts on their way, and what it keeps of all items.

    kept is None where it is not known how many items there are.
    """

    step: str
    weights: int
    prompts: int
    at_once: int
    kept: int | None


@dataclass(frozen=True)
class Estimate:
    """The needs of a plan's steps. longest: tokens of a prompt, at most; free: bytes of memory, 0 if nobody knows."""

    needs: tuple[Need, ...]
    longest: int
    free: int


def estimate(plan: Plan, results: Store, machine: Machine) -> Estimate | None:
    """What the plan's language-model steps take, or None where it has none or the model is not on this machine.

    Prompts are as long as the texts allow where the corpus is in the store, else as long as the recipe does.
    """
    llm = next((job.step for job in plan.jobs if isinstance(job.step, LanguageModel)), None)
    shape = None if llm is None else shape_of(llm.backbone, 2 if machine.precision == "bfloat16" else _FLOAT32)
    if llm is None or shape is None:
        return None
    made = plan.job_of(Corpus)
    corpus = fetch(plan, results, Corpus) if made is not None and results.has(made.key) else None
    before = len(llm.system_prompt) + len(llm.prefix)
    lengths = [(before + len(text)) // _CHARACTERS for text in corpus.texts] if corpus else []
    longest = min([llm.max_length, *([max(lengths)] if lengths else [])])
    needs = []
    for job in plan.jobs:
        if isinstance(job.step, Contrast | Reinforcement | Encode):
            size = micro_batch(machine, shape, longest, learns=isinstance(job.step, Contrast))
            kept = _kept(job.step, shape, [min(longest, length) for length in lengths])
            per_token = shape.learnt_token if isinstance(job.step, Contrast) else shape.read_token
            needs.append(Need(job.name, shape.weights, size, size * longest * per_token, kept))
    return Estimate(tuple(needs), longest, free_memory(machine.device_name())) if needs else None


def _kept(step: Contrast | Reinforcement | Encode, shape: Shape, lengths: list[int]) -> int | None:
    if isinstance(step, Contrast):
        return 0
    if not lengths:
        return None
    if isinstance(step, Encode):
        return len(lengths) * shape.width * _FLOAT32
    limit = step.max_length or max(lengths)
    return int(min(sum(min(limit, length) for length in lengths) * shape.cached_token, step.cache_gb * 1e9))


def shape_of(backbone: object, kept: int) -> Shape | None:
    """Sizes of a backbone whose numbers take `kept` bytes; None for a model that lies elsewhere or is a plug-in's."""
    if isinstance(backbone, Tiny):
        width = backbone.hidden
        return Shape(width, 2 * width, backbone.layers, 4, 2, width // 4, backbone.vocabulary, True, kept)
    if isinstance(backbone, SmolLM2):
        return Shape(576, 1536, backbone.layers or 30, 9, 3, 64, 49_152, True, kept)
    if isinstance(backbone, Bidirectional):
        return shape_of(backbone.of, kept)
    if isinstance(backbone, CausalLM):
        return _shape_in(Path(backbone.model).expanduser() / "config.json", backbone.layers, kept)
    return None


def _shape_in(file: Path, layers: int | None, kept: int) -> Shape | None:
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        config = SimpleNamespace(**{"tie_word_embeddings": True, **facts})
        config.get_text_config = lambda: config
        config.num_hidden_layers = layers or config.num_hidden_layers
        return Shape.of(config, kept)
    except (OSError, ValueError, AttributeError):
        return None


def memory_lines(found: Estimate) -> Iterator[str]:
    """The estimate in lines."""
    free = f", {_gigabytes(found.free)} free" if found.free else ""
    yield f"memory, at most about (prompts of up to {found.longest} tokens{free}):"
    for need in found.needs:
        kept = "" if need.kept == 0 else f", kept of all items {_gigabytes(need.kept)}"
        yield (
            f"  {need.step}: weights {_gigabytes(need.weights)}, {need.prompts} prompts at once "
            f"{_gigabytes(need.at_once)}{kept}"
        )


def _gigabytes(count: int | None) -> str:
    if count is None:
        return "unknown until the data are prepared"
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
