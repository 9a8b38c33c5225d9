"""How much memory the steps of the language model would take, estimated before anything is computed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.execute import fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Job, Plan
from reaemb_bench.core.store import Store
from reaemb_bench.encoder.backbones.shape import FLOAT32, shape_of
from reaemb_bench.encoder.embed import Encode
from reaemb_bench.encoder.folder import LanguageModel
from reaemb_bench.encoder.lrcl import Contrast
from reaemb_bench.encoder.memory import free_memory, micro_batch
from reaemb_bench.rl.crrl import Reinforcement

_CHARACTERS = 3
"""Characters of text for each token: fewer than in English prose, so that estimates err upwards."""


@dataclass(frozen=True)
class Need:
    """What a step of the language model takes at most, in bytes. prompts: how many are read at once. kept: in words."""

    job: Job
    weights: int
    prompts: int
    at_once: int
    kept: str

    @property
    def least(self) -> int:
        """Bytes without which it cannot run: weights and one prompt."""
        return self.weights + self.at_once // self.prompts


def memory_needs(plan: Plan, results: Store, machine: Machine) -> tuple[int, list[Need]]:
    """The longest prompt, in tokens, and for each language-model step the memory that it takes.

    Prompts are as long as the texts need if the corpus is in the store, else as long as the recipe allows. There are no
    needs if the plan has no such step or the model is not on this machine.
    """
    llm = next((job.step for job in plan.jobs if isinstance(job.step, LanguageModel)), None)
    shape = None if llm is None else shape_of(llm.backbone, 2 if machine.precision_name() == "bfloat16" else FLOAT32)
    if llm is None or shape is None:
        return 0, []
    job = plan.job_of(Corpus)
    corpus = fetch(plan, results, Corpus) if job is not None and results.has(job.key) else None
    before = len(llm.system_prompt) + len(llm.prefix)
    lengths = [(before + len(text)) // _CHARACTERS for text in corpus.texts] if corpus else []
    longest = min(llm.max_length, max(lengths, default=llm.max_length))
    needs = []
    for job in plan.jobs:
        step, learns, kept = job.step, isinstance(job.step, Contrast), ""
        if isinstance(step, Encode):
            kept = gigabytes(len(lengths) * shape.width * FLOAT32)
        elif isinstance(step, Reinforcement):
            tokens = sum(min(step.max_length or longest, longest, length) for length in lengths)
            kept = f"{gigabytes(min(tokens * shape.cached_token, int(step.cache_gb * 1e9)))} on disk"
        elif not learns:
            continue
        if kept:
            kept = f", kept of all items {kept if lengths else 'unknown until the data are prepared'}"
        size = micro_batch(machine, shape, longest, learns=learns)
        at_once = size * longest * (shape.learnt_token if learns else shape.read_token)
        needs.append(Need(job, shape.weights, size, at_once, kept))
    return longest, needs


def memory_lines(plan: Plan, results: Store, machine: Machine) -> list[str]:
    """What each language-model step takes at most: weights, a micro-batch of prompts, what it keeps of all items."""
    longest, needs = memory_needs(plan, results, machine)
    lines = [
        f"  {need.job.name}: weights {gigabytes(need.weights)}, {need.prompts} prompts at once "
        f"{gigabytes(need.at_once)}{need.kept}"
        for need in needs
    ]
    memory = free_memory(machine.device_name())
    free = f", {gigabytes(memory)} free" if memory else ""
    return [f"memory, at most about (prompts of up to {longest} tokens{free}):", *lines] if lines else []


def shortages(plan: Plan, keys: Collection[str], results: Store, machine: Machine) -> dict[str, str]:
    """Key of a job, of the jobs `keys` -> that a GPU has no room for its weights and a prompt, in one line."""
    device = machine.device_name()
    if not device.startswith("cuda") or not keys:
        return {}
    free, (longest, needs) = free_memory(device), memory_needs(plan, results, machine)
    return {
        need.job.key: (
            f"{need.job.name}: its weights and one prompt of {longest} tokens take about {gigabytes(need.least)}, and "
            f"{device} has {gigabytes(free)} free; choose a smaller model, lower llm.max_length, or end other programs"
        )
        for need in needs
        if need.job.key in keys and need.least > free
    }


def gigabytes(count: float) -> str:
    """Bytes in MB or GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
