"""`reaemb-bench plan`: what a run would do, without doing it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
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
from reaemb_bench.core.files import cached_sha256
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Job, Plan, needed_jobs
from reaemb_bench.core.plan import plan as plan_recipe
from reaemb_bench.core.recipe import Recipe, load
from reaemb_bench.core.runs import differences, flatten
from reaemb_bench.core.settings_only import placeholders
from reaemb_bench.core.store import MANIFEST, Store
from reaemb_bench.tracking.terminal import in_words

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
        changed = min((differences(each, here) for each in earlier), key=len)
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
    with placeholders():
        from reaemb_bench.experiments.memory import estimate, memory_lines

    found = estimate(planned, results, machine)
    if found is not None:
        screen.print(*memory_lines(found), sep="\n", markup=False, highlight=False)


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
        digest = cached_sha256(Path(file))[:_KEY_CHARACTERS]
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
