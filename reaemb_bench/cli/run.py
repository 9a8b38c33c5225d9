"""`reaemb-bench run` computes what is missing and prints the table; `plan` says what a run would compute, and why."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape
from typer import Option

from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    Drops,
    RecipeName,
    Sets,
    Wide,
    Words,
    compute_options,
    machine_options,
)
from reaemb_bench.cli.screen import KEY_CHARACTERS, component_name, console, plain_table, say, show, show_tables
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import cached_sha256
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load, locate, read_toml
from reaemb_bench.core.settings_only import placeholders
from reaemb_bench.core.store import MANIFEST, Store

if TYPE_CHECKING:
    from reaemb_bench.core.plan import Job

_CHANGES_SHOWN = 3


@compute_options("mlflow", "log_models")
def run(
    machine: Machine,
    recipe: RecipeName = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    name: Annotated[str | None, Option(help="Name in history, tables and MLflow; by default the recipe's.")] = None,
    vectors: Annotated[
        Path | None, Option(help="Without a recipe: item vectors to judge on --data, a file or exported folder.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        Option(help="With --vectors: files of interactions and, if you like, items, or their folder."),
    ] = None,
    columns: Annotated[Words, Option("--column", metavar="ROLE=NAME", help="As for `data check`.")] = None,
    wide: Wide = None,
    process_timeout: Annotated[
        float,
        Option(
            envvar="REAEMB_BENCH_PROCESS_TIMEOUT",
            min=1.0,
            help="Under torchrun: seconds without an answer after which another process counts as lost.",
            rich_help_panel="Machine",
        ),
    ] = 600.0,
) -> None:
    """Run a recipe: every step whose result is not in the store yet, for each seed, then print the table.

    Under torchrun, several processes share the work of the steps that run the language model.

    Examples:
    reaemb-bench run quickstart
    reaemb-bench run my_recipe.toml --set "seeds=[1, 2, 3]"
    reaemb-bench run --vectors emb.parquet --data my_folder
    reaemb-bench run quickstart --drop crrl --name "without CRRL"
    torchrun --nproc-per-node 2 -m reaemb_bench run reaemb_full
    """
    from reaemb_bench.core.artifacts import Ranks
    from reaemb_bench.core.distributed import is_first, process_group
    from reaemb_bench.core.execute import execute
    from reaemb_bench.core.plan import plan
    from reaemb_bench.experiments.running import Counts, executed
    from reaemb_bench.report.expected import changes, read_expected
    from reaemb_bench.report.recipe_tables import tables_of

    if vectors is not None or data or columns:
        if vectors is None or not data or recipe != DEFAULT_RECIPE:
            raise UserError(
                "--vectors, --data and --column go together and without a recipe; in a recipe, write "
                '[vectors] path = "..." and [prepare.source]'
            )
        from reaemb_bench.experiments.evaluate import VECTORS_RECIPE, recipe_of_vectors

        recipe, loaded = VECTORS_RECIPE, recipe_of_vectors(vectors, data, columns or (), sets or (), drops or ())
    else:
        loaded = load(recipe, sets or (), drops or ())
    if name is not None:
        if not name.strip() or not name.isprintable() or name.endswith(".toml"):
            raise UserError(f"--name: {name!r} is not a name for a run; give a few words, without .toml at the end")
        loaded = replace(loaded, name=name, title=name)
    # Read before anything runs, so that a mistake in the file costs no results.
    expected = read_expected(locate(recipe), changes(sets or (), drops or ()))
    plans = [plan(loaded, seed) for seed in loaded.seeds]
    with process_group(machine, process_timeout) as local:
        if not is_first():
            for planned in plans:
                execute(planned, Store(local.store), local, lambda event: None)
            return
        start, counts = time.monotonic(), Counts()
        with executed(plans, local, console(), counts) as tracking:
            tables = tables_of(plans, Store(local.store), expected)
            show_tables(loaded.title, tables, None, wide)
            tracking.show(tables)
        say(counts.in_words(time.monotonic() - start))
        verb = f"report {tracking.run.id}" if plans[0].job_of(Ranks) is not None else "store ls"
        say(f"run {tracking.run.id} ({loaded.name}) is in {local.store}; next: reaemb-bench {verb}")


@machine_options("precision", "micro_batch", "store", "cache")
def plan(machine: Machine, recipe: RecipeName = DEFAULT_RECIPE, sets: Sets = None, drops: Drops = None) -> None:
    """Show which steps would run, which are cached, and why; and how much memory the language model takes.

    Of a suite, it shows which cells `bench` would compute, and how often each step would run.

    Examples:
    reaemb-bench plan quickstart
    reaemb-bench plan quickstart --set train.head.dropout=0.4
    reaemb-bench plan suites/quick
    """
    if "methods" in read_toml(locate(recipe)):
        _plan_suite(machine, recipe, sets or (), drops or ())
        return
    from reaemb_bench.core.artifacts import Corpus
    from reaemb_bench.core.execute import fetch, other_code
    from reaemb_bench.core.plan import flatten, needed_jobs
    from reaemb_bench.core.plan import plan as plan_recipe
    from reaemb_bench.tracking.terminal import in_words

    with placeholders():
        from reaemb_bench.experiments.memory import memory_lines

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


def _plan_suite(machine: Machine, suite: str, sets: Sequence[str], drops: Sequence[str]) -> None:
    """Says which cells of a suite the store has, and which steps the others need, each result counted once."""
    if drops:
        raise UserError("--drop leaves out steps of a recipe; a method of a suite has `drop` for it")
    with placeholders():
        from reaemb_bench.core.plan import needed_jobs
        from reaemb_bench.experiments.bench import grid, read_suite
        from reaemb_bench.experiments.variants import judge

    loaded, store = read_suite(suite, sets), Store(machine.store)
    cells = grid(loaded)
    table = plain_table("data", "recommender", "method", "seeds cached", "steps to run", right=("seeds cached",))
    steps: dict[str, str] = {}
    for cell in cells.cells:
        needed = {
            job.key: job.name
            for planned in cell.variant.plans
            for wanted in [needed_jobs(planned, store)]
            for job in planned.jobs
            if job.key in wanted
        }
        steps |= needed
        cached = sum(store.has(judge(planned).key) for planned in cell.variant.plans)
        counts = ", ".join(f"{count} {name}" for name, count in Counter(needed.values()).items())
        head = cell.head if cell.takes_head or not cell.head else f"{cell.head} (its own)"
        row = (cell.data, head, cell.name, f"{cached} of {len(cell.variant.plans)}", counts or "none")
        table.add_row(*map(escape, row))
    missing = sum(not store.has(judge(planned).key) for _, planned in cells.tasks())
    say(f"{loaded.title}: {missing} of {len(cells.tasks())} cells would be computed", style="bold")
    show(table, "")
    total = ", ".join(f"{count} {name}" for name, count in Counter(steps.values()).items())
    say(f"steps to run, each result once: {total or 'none'}")


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
