"""`reaemb-bench run` computes what is missing and prints the table."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Option

from reaemb_bench.cli.options import DEFAULT_RECIPE, Drops, Limit, RecipeName, Sets, Wide, Words, compute_options
from reaemb_bench.cli.screen import console, say, show_tables
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load, locate
from reaemb_bench.core.store import Store


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
    limit: Limit = False,
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
    reaemb-bench run my_recipe.toml --limit
    reaemb-bench run --vectors emb.parquet --data my_folder
    reaemb-bench run quickstart --drop crrl --name "without CRRL"
    torchrun --nproc-per-node 2 -m reaemb_bench run reaemb_full
    """
    from reaemb_bench.core.artifacts import Ranks
    from reaemb_bench.core.distributed import is_first, process_group
    from reaemb_bench.core.execute import execute
    from reaemb_bench.core.plan import plan
    from reaemb_bench.experiments.forecast import check_ready
    from reaemb_bench.experiments.running import Counts, executed
    from reaemb_bench.experiments.variants import limited
    from reaemb_bench.report.expected import changes, read_expected
    from reaemb_bench.report.recipe_tables import NOTHING, tables_of

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
    if limit:
        loaded = limited(loaded)
    # Read before anything runs, so that a mistake in the file costs no results.
    expected = NOTHING if limit else read_expected(locate(recipe), changes(sets or (), drops or ()))
    plans = [plan(loaded, seed) for seed in loaded.seeds]
    check_ready(plans, Store(machine.store), machine)
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
