"""`reaemb-bench plan` says what a recipe, an ablation or a suite would compute, why, and what that takes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from reaemb_bench.cli.options import DEFAULT_RECIPE, Drops, Limit, RecipeName, Sets, machine_options
from reaemb_bench.cli.screen import KEY_CHARACTERS, component_name, plain_table, say, show, some_of
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import cached_sha256
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load, locate, read_toml
from reaemb_bench.core.settings_only import placeholders
from reaemb_bench.core.store import Store

if TYPE_CHECKING:
    from reaemb_bench.core.plan import Job, Plan
    from reaemb_bench.experiments.bench import Grid

_CHANGES_SHOWN = 3


@machine_options("device", "precision", "micro_batch", "store", "cache")
def plan(
    machine: Machine,
    recipe: RecipeName = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    limit: Limit = False,
) -> None:
    """Show which steps would run, which are cached, and why; what is in the way; and time, memory and disk.

    Of a suite or a file of ablations, it shows which cells or variants would be computed. Times are those of similar
    results in the store, scaled by steps, epochs, interactions and texts; `?` marks what only unlike results tell.

    Examples:
    reaemb-bench plan quickstart
    reaemb-bench plan quickstart --set train.head.dropout=0.4
    reaemb-bench plan suites/quick
    reaemb-bench plan ablations
    """
    raw = read_toml(locate(recipe))
    if "methods" in raw or "variants" in raw:
        if drops:
            raise UserError("--drop leaves out steps of a recipe; a suite's methods and variants have `drop` for it")
        with placeholders():
            from reaemb_bench.experiments.ablate import limited_ablation, read_ablation
            from reaemb_bench.experiments.bench import grid, limited_grid, read_suite
        if "methods" in raw:
            suite = read_suite(recipe, sets or ())
            plan_suite(suite.title, limited_grid(grid(suite)) if limit else grid(suite), machine)
            return
        ablation = read_ablation(recipe, sets=sets or ())
        if limit:
            ablation = limited_ablation(ablation)
        variants = [(variant.name, variant.plans) for variant in (ablation.base, *ablation.variants)]
        plan_cells(ablation.title, ("variant",), [((name,), plans) for name, plans in variants], machine)
        return
    from reaemb_bench.core.artifacts import Corpus
    from reaemb_bench.core.execute import fetch, other_code
    from reaemb_bench.core.plan import flatten, needed_jobs
    from reaemb_bench.core.plan import plan as plan_recipe
    from reaemb_bench.tracking.terminal import in_words

    with placeholders():
        from reaemb_bench.experiments.forecast import Forecast, totals, why_not
        from reaemb_bench.experiments.memory import memory_lines
        from reaemb_bench.experiments.variants import limited

    loaded, store = load(recipe, sets or (), drops or ()), Store(machine.store)
    if limit:
        loaded = limited(loaded)
    plans, forecast = [plan_recipe(loaded, seed) for seed in loaded.seeds], Forecast(store, machine)
    headings, costs = ("step", "component", "state", "takes", "key"), {}
    for planned in plans:
        needed, step_names = needed_jobs(planned, store), {job.key: job.name for job in planned.jobs}
        say(f"{loaded.title}, seed {planned.seed}: {len(needed)} of {len(planned.jobs)} steps would run", style="bold")
        table = plain_table(*headings, "why", no_wrap=headings, right=("takes",))
        for job in planned.jobs:
            if job.key in needed:
                cost = forecast.cost(planned, job)
                costs[job.key] = job.name, cost
                state, takes, why = "[yellow]run[/]", str(cost or "unknown"), ""
                why = _why_needed(job, needed, step_names, forecast.earlier(job.name))
            elif store.has(job.key):
                manifest = store.manifest(job.key)
                state, takes, why = "[green]cached[/]", f"took {in_words(float(manifest.get('seconds', 0.0)))}", ""
                if changed := other_code(job, manifest):
                    why = f"computed by other code ({changed})"
            else:
                state, takes, why = "[dim]not needed[/]", "", "all that depends on it is cached"
            if job.step.leaks:
                why = f"{why}; ⚠ looks at held-out data"
            name = component_name(job.step.use)
            table.add_row(escape(job.name), escape(name), state, takes, job.key[:KEY_CHARACTERS], escape(why))
        show(table, "")
    if costs:
        say(totals(costs, store, machine))
    embedder = "the run's" if loaded.embedder_seed is None else str(loaded.embedder_seed)
    say(f"seeds: {', '.join(map(str, loaded.seeds))}; data seed: {loaded.data_seed}; embedder seed: {embedder}")
    specs = flatten({name: step.spec() for name, step in loaded.steps.items()})
    names = {str(use) for path, use in specs.items() if path.rpartition(".")[2] == "use" and ".py:" in str(use)}
    for plugin in sorted({name.rpartition(":")[0] for name in names}):
        say(f"runs code of {plugin} (sha256 {cached_sha256(Path(plugin))[:KEY_CHARACTERS]}…)")
    for line in memory_lines(plans[0], store, machine):
        say(line)
    prepared = plans[0].job_of(Corpus)
    corpus = fetch(plans[0], store, Corpus) if prepared is not None and store.has(prepared.key) else None
    for job in plans[0].jobs:
        if job.key in needed_jobs(plans[0], store) and hasattr(job.step, "forecast"):
            say(f"{job.name}: {job.step.forecast(corpus, machine)}")
    for reason in dict.fromkeys(reason for planned in plans for reason in why_not(planned, store, machine).values()):
        say(f"cannot run: {reason}", style="bold")


def plan_suite(title: str, cells: Grid, machine: Machine) -> None:
    """Say which cells of a suite the store has, what the others take, and why some cannot run."""
    rows = []
    for cell in cells.cells:
        head = cell.head if cell.takes_head or not cell.head else f"{cell.head} (its own)"
        rows.append(((cell.data, head, cell.name), cell.variant.plans))
    rows += [((data, "", "floors"), (planned,)) for data, planned in cells.floors.items()]
    plan_cells(title, ("data", "recommender", "method"), rows, machine)


def plan_cells(
    title: str, headings: Sequence[str], rows: Iterable[tuple[Sequence[str], Sequence[Plan]]], machine: Machine
) -> None:
    """Say which plans of named rows, one plan a seed, the store has; what the others take, each result counted once."""
    with placeholders():
        from reaemb_bench.core.plan import needed_jobs
        from reaemb_bench.experiments.forecast import Cost, Forecast, totals, why_not
        from reaemb_bench.experiments.variants import judge

    store = Store(machine.store)
    forecast, counted = Forecast(store, machine), ("seeds cached", "takes")
    table = plain_table(*headings, "seeds cached", "steps to run", "takes", right=counted, no_wrap=counted)
    # By key: of all last steps, whether they are cached; of all steps to run, their names and costs.
    cells, steps = dict[str, bool](), dict[str, tuple[str, Cost | None]]()
    reasons: dict[str, list[str]] = {}
    for names, plans in rows:
        own: dict[str, tuple[str, Cost | None]] = {}
        for planned in plans:
            needed = needed_jobs(planned, store)
            own |= {job.key: (job.name, forecast.cost(planned, job)) for job in planned.jobs if job.key in needed}
            cells[judge(planned).key] = store.has(judge(planned).key)
            for reason in list(why_not(planned, store, machine).values())[:1]:
                reasons.setdefault(reason, []).append(f"{', '.join(filter(None, names))}, seed {planned.seed}")
        steps |= own
        known = [cost for _, cost in own.values() if cost is not None]
        takes = Cost(sum(cost.seconds for cost in known), 0, 0, any(cost.rough for cost in known))
        unknown = " and more" if 0 < len(known) < len(own) else ""
        shown = f"{takes}{unknown}" if known else "unknown" if own else ""
        cached = f"{sum(store.has(judge(planned).key) for planned in plans)} of {len(plans)}"
        table.add_row(*map(escape, (*names, cached, _counts(name for name, _ in own.values()) or "none", shown)))
    missing = sum(not cached for cached in cells.values())
    say(f"{title}: {missing} of {len(cells)} cells would be computed", style="bold")
    show(table, "")
    say(f"steps to run, each result once: {_counts(name for name, _ in steps.values()) or 'none'}")
    if steps:
        say(totals(steps, store, machine))
    for reason, labels in reasons.items():
        say(f"cannot run, {some_of(labels, len(cells))}: {reason}", style="bold")


def _counts(names: Iterable[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).items())


def _why_needed(
    job: Job, needed: frozenset[str], step_names: Mapping[str, str], earlier: Sequence[Mapping[str, Any]]
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
