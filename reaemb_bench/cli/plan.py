"""What the steps of the language model would take of memory, told before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    Drops,
    MicroBatch,
    Precision,
    RecipePlace,
    Sets,
    StorePlace,
    console,
    machine_from,
)
from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.execute import Job, Plan, fetch, needed_jobs
from reaemb_bench.core.execute import plan as plan_recipe
from reaemb_bench.core.files import sha256_unless_known
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import Recipe, load
from reaemb_bench.core.runs import differing, flatten
from reaemb_bench.core.store import MANIFEST, Store
from reaemb_bench.encoder.backbones.bidirectional import Bidirectional
from reaemb_bench.encoder.backbones.causal_lm import CausalLM
from reaemb_bench.encoder.backbones.smollm2 import SmolLM2
from reaemb_bench.encoder.backbones.tiny import Tiny
from reaemb_bench.encoder.embed import Encode
from reaemb_bench.encoder.folder import LanguageModel
from reaemb_bench.encoder.lrcl import Contrast
from reaemb_bench.encoder.memory import Shape, free_memory, micro_batch
from reaemb_bench.rl.crrl import Reinforcement
from reaemb_bench.tracking.terminal import in_words

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
    return Estimate(tuple(needs), longest, free_memory(str(machine.torch_device()))) if needs else None


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


def told(found: Estimate) -> Iterator[str]:
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


# Why a step must run: what differs from the most similar result that the store holds.


_SHOWN = 3


class Reasons:
    """Reasons for the steps of one plan, from one look through the store."""

    def __init__(self, planned: Plan, store: Store) -> None:
        self._maker = {job.key: job.name for job in planned.jobs}
        self._earlier: dict[str, list[Mapping[str, Any]]] = {}
        for file in sorted(store.root.glob(f"results/*/{MANIFEST}")):
            try:
                manifest = json.loads(file.read_text(encoding="utf-8"))
                self._earlier.setdefault(manifest["step"], []).append(flatten(manifest["identity"]))
            except (OSError, ValueError, KeyError):
                # A damaged manifest is reported by whoever needs the result; here it only explains less.
                continue

    def why(self, job: Job, needed: frozenset[str]) -> str:
        """One clause that says why `job` is not in the store."""
        upstream = [self._maker[key] for _, key in job.inputs.values() if key in needed]
        here = flatten(json.loads(json.dumps(job.identity)))
        earlier = self._earlier.get(job.name, [])
        if not earlier:
            return "new" if not upstream else f"new; waits for {_listed(upstream)}"
        changed = min((differing(each, here) for each in earlier), key=len)
        own = [text for text in changed if not text.startswith("inputs.")]
        if own:
            return "; ".join(own[:_SHOWN]) + (f" (and {len(own) - _SHOWN} more)" if len(own) > _SHOWN else "")
        if upstream:
            return f"its input from {_listed(upstream)} changes"
        return "reads other results than before: " + _listed([self._maker[key] for _, key in job.inputs.values()])


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))


# `reaemb-bench plan`: what a run would do, without doing it.


_KEY_CHARACTERS = 12
_LEAKS = "⚠ looks at held-out data"


def plan(
    recipe: RecipePlace = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    store: StorePlace = None,
    precision: Precision = "auto",
    micro_batch: MicroBatch = None,
) -> None:
    """Show which steps would run and which are cached, and why; and what the language model takes of memory."""
    read = load(recipe, sets or (), drops or ())
    machine = machine_from(store=store, precision=precision, micro_batch=micro_batch)
    results = Store(machine.store)
    screen = console()
    for seed in read.seeds:
        planned = plan_recipe(read, seed)
        needed = needed_jobs(planned, results)
        title = f"{read.title}, seed {seed}: {len(needed)} of {len(planned.jobs)} steps would run"
        screen.print(title, style="bold", markup=False, highlight=False)
        screen.print(_table(planned, needed, results))
        screen.print()
    _print_facts(read, screen)
    _print_memory(plan_recipe(read, read.seeds[0]), results, machine, screen)


def _print_memory(planned: Plan, results: Store, machine: Machine, screen: Console) -> None:
    if not any(isinstance(job.step, LanguageModel) for job in planned.jobs):
        return
    # Here, because it imports torch, which is slow; the rest of the plan is on the screen by now.

    found = estimate(planned, results, machine)
    if found is not None:
        screen.print(*told(found), sep="\n", markup=False, highlight=False)


def _table(planned: Plan, needed: frozenset[str], results: Store) -> Table:
    reasons = Reasons(planned, results)
    table = Table(box=None, pad_edge=False)
    for heading in ("step", "component", "state", "key", "why"):
        table.add_column(heading, no_wrap=heading != "why")
    for job in planned.jobs:
        state, why = _state(job, needed, results, reasons)
        marks = f"{why}; {_LEAKS}" if job.step.leaks and why else _LEAKS if job.step.leaks else why
        table.add_row(escape(job.name), escape(_component(job)), state, job.key[:_KEY_CHARACTERS], escape(marks))
    return table


def _state(job: Job, needed: frozenset[str], results: Store, reasons: Reasons) -> tuple[str, str]:
    if job.key in needed:
        return "[yellow]run[/]", reasons.why(job, needed)
    if results.has(job.key):
        seconds = results.manifest(job.key).get("seconds", 0.0)
        return "[green]cached[/]", f"took {in_words(float(seconds))}"
    return "[dim]not needed[/]", "all that depends on it is cached"


def _component(job: Job) -> str:
    file, colon, attribute = job.step.use.rpartition(":")
    return f"{file.rpartition('/')[2]}{colon}{attribute}"


def _print_facts(recipe: Recipe, screen: Console) -> None:
    seeds = ", ".join(str(seed) for seed in recipe.seeds)
    embedder = "the run's" if recipe.embedder_seed is None else str(recipe.embedder_seed)
    screen.print(f"seeds: {seeds}; data seed: {recipe.data_seed}; embedder seed: {embedder}", highlight=False)
    for file in sorted(set(_plugins({name: step.spec() for name, step in recipe.steps.items()}))):
        digest = sha256_unless_known(Path(file))[:_KEY_CHARACTERS]
        screen.print(f"runs code of {file} (sha256 {digest}…)", markup=False, highlight=False, soft_wrap=True)


def _plugins(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        use = value.get("use")
        if isinstance(use, str) and ".py:" in use:
            yield use.rpartition(":")[0]
        for each in value.values():
            yield from _plugins(each)
    elif isinstance(value, list):
        for each in value:
            yield from _plugins(each)
