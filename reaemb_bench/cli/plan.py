"""`reaemb-bench plan`: what a run would compute and why, without computing it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from reaemb_bench.cli.options import DEFAULT_RECIPE, Drops, RecipeName, Sets, machine_options
from reaemb_bench.cli.screen import KEY_CHARACTERS, component_name, plain_table, say, show
from reaemb_bench.core.files import cached_sha256
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load
from reaemb_bench.core.settings_only import placeholders
from reaemb_bench.core.store import MANIFEST, Store

if TYPE_CHECKING:
    from reaemb_bench.core.plan import Job

_CHANGES_SHOWN = 3


@machine_options("precision", "micro_batch", "store")
def plan(machine: Machine, recipe: RecipeName = DEFAULT_RECIPE, sets: Sets = None, drops: Drops = None) -> None:
    """Show which steps would run, which are cached, and why; and how much memory the language model takes.

    Examples:
    reaemb-bench plan quickstart
    reaemb-bench plan quickstart --set train.head.dropout=0.4
    """
    from reaemb_bench.core.execute import other_code
    from reaemb_bench.core.plan import flatten, needed_jobs
    from reaemb_bench.core.plan import plan as plan_recipe
    from reaemb_bench.tracking.terminal import in_words

    with placeholders():
        from reaemb_bench.experiments.memory import estimate, memory_lines

    loaded, store = load(recipe, sets or (), drops or ()), Store(machine.store)
    plans = [plan_recipe(loaded, seed) for seed in loaded.seeds]
    # By step, what decided each of its results in the store, as flat tables.
    earlier: dict[str, list[Mapping[str, Any]]] = {}
    for file in sorted(store.root.glob(f"results/*/{MANIFEST}")):
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            earlier.setdefault(manifest["step"], []).append(flatten(manifest["identity"]))
        except (OSError, ValueError, KeyError):
            # The step that needs a damaged result reports it; here it only explains less.
            continue
    headings = ("step", "component", "state", "key")
    for planned in plans:
        needed, step_names = needed_jobs(planned, store), {job.key: job.name for job in planned.jobs}
        say(f"{loaded.title}, seed {planned.seed}: {len(needed)} of {len(planned.jobs)} steps would run", style="bold")
        table = plain_table(*headings, "why", no_wrap=headings)
        for job in planned.jobs:
            if job.key in needed:
                state, why = "[yellow]run[/]", _why_needed(job, needed, step_names, earlier.get(job.name, []))
            elif store.has(job.key):
                manifest = store.manifest(job.key)
                state, why = "[green]cached[/]", f"took {in_words(float(manifest.get('seconds', 0.0)))}"
                if changed := other_code(job, manifest):
                    why = f"{why}; computed by other code ({changed})"
            else:
                state, why = "[dim]not needed[/]", "all that depends on it is cached"
            if job.step.leaks:
                why = f"{why}; ⚠ looks at held-out data"
            name = component_name(job.step.use)
            table.add_row(escape(job.name), escape(name), state, job.key[:KEY_CHARACTERS], escape(why))
        show(table, "")
    embedder = "the run's" if loaded.embedder_seed is None else str(loaded.embedder_seed)
    say(f"seeds: {', '.join(map(str, loaded.seeds))}; data seed: {loaded.data_seed}; embedder seed: {embedder}")
    for plugin in sorted(set(_plugin_files({name: step.spec() for name, step in loaded.steps.items()}))):
        say(f"runs code of {plugin} (sha256 {cached_sha256(Path(plugin))[:KEY_CHARACTERS]}…)")
    memory = estimate(plans[0], store, machine)
    for line in memory_lines(memory) if memory is not None else ():
        say(line)


def _why_needed(
    job: Job, needed: frozenset[str], step_names: Mapping[str, str], earlier: list[Mapping[str, Any]]
) -> str:
    """How a job differs from the most similar result of its step, in one clause."""
    from reaemb_bench.core.plan import differences, flatten

    inputs = [key for _, key in job.inputs.values()]
    changing = ", ".join(dict.fromkeys(step_names[key] for key in inputs if key in needed))
    if not earlier:
        return f"new; waits for {changing}" if changing else "new"
    identity = flatten(json.loads(json.dumps(job.identity)))
    nearest = min((differences(other, identity) for other in earlier), key=len)
    changes = [change for change in nearest if not change.startswith("inputs.")]
    if changes:
        more = f" (and {len(changes) - _CHANGES_SHOWN} more)" if len(changes) > _CHANGES_SHOWN else ""
        return "; ".join(changes[:_CHANGES_SHOWN]) + more
    if changing:
        return f"its input from {changing} changes"
    return f"reads other results than before: {', '.join(dict.fromkeys(step_names[key] for key in inputs))}"


def _plugin_files(spec: Any) -> Iterator[str]:
    """The files of all plug-ins that a recipe names, at any depth."""
    if isinstance(spec, dict):
        use = spec.get("use")
        if isinstance(use, str) and ".py:" in use:
            yield use.rpartition(":")[0]
    for value in spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ():
        yield from _plugin_files(value)
