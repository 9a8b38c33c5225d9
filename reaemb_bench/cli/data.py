"""`reaemb-bench data`: fetch and divide a recipe's data, nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from rich.table import Table

from reaemb_bench.artifacts import Corpus, Holdout, Signal
from reaemb_bench.cli.options import (
    DEFAULT_RECIPE,
    CachePlace,
    Drops,
    RecipePlace,
    Sets,
    StorePlace,
    console,
    machine_from,
)
from reaemb_bench.errors import UserError
from reaemb_bench.pipeline import Plan, execute, facts_of, fetch
from reaemb_bench.pipeline import plan as plan_recipe
from reaemb_bench.recipe import load, locate
from reaemb_bench.reporting.expected import changes, read_expected
from reaemb_bench.store import Store
from reaemb_bench.tracking.terminal import watching

_FACTS = {
    "warm_test_targets": "test targets with a training interaction",
    "cold_test_targets": "test targets without one",
    "test_users_without_training": "test users without a training interaction",
    "test_users_without_history": "users not judged, for want of a history",
}
"""What `prepare` notes -> how people read it."""


def prepare(
    recipe: RecipePlace = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    store: StorePlace = None,
    cache: CachePlace = None,
) -> None:
    """Run the recipe's data step alone and print what it counts."""
    machine = machine_from(store=store, cache=cache, mlflow="")
    read = load(recipe, sets or (), drops or ())
    expected = read_expected(locate(recipe), changes(sets or (), drops or ()))
    planned = until_corpus(plan_recipe(read, read.seeds[0]))
    results = Store(machine.store)
    screen = console()
    with watching(planned, screen) as watch:
        execute(planned, results, machine, watch)
    screen.print(_counts(planned, results))
    for line in expected.counted(facts_of(planned, results, Corpus)):
        screen.print(line, markup=False, highlight=False)


def until_corpus(planned: Plan) -> Plan:
    """The plan up to the step that makes the corpus. Raises UserError where there is none."""
    for place, job in enumerate(planned.jobs):
        if Corpus in job.makes:
            return replace(planned, jobs=planned.jobs[: place + 1], leaks=())
    raise UserError("this recipe has no step that makes a Corpus, so there are no data to prepare")


def _counts(planned: Plan, results: Store) -> Table:
    corpus = fetch(planned, results, Corpus)
    assert corpus is not None
    table = Table(box=None, pad_edge=False, title=corpus.name, title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    training = corpus.training
    rows: dict[str, float | str] = {
        "users": corpus.users,
        "items": corpus.items,
        "training interactions": len(training.items),
        "mean training length": f"{np.mean(training.lengths):,.1f}" if corpus.users else "0.0",
        "items without a training interaction": int((corpus.popularity == 0).sum()),
    }
    signal = fetch(planned, results, Signal)
    holdout = fetch(planned, results, Holdout)
    if signal is not None:
        rows["validation users"] = len(signal.users)
    if holdout is not None:
        rows["test users"] = len(holdout.users)
    for name, count in {**rows, **_noted(facts_of(planned, results, Corpus))}.items():
        table.add_row(name, count if isinstance(count, str) else f"{count:,}")
    return table


def _noted(facts: Mapping[str, Any]) -> dict[str, float | str]:
    """Rows for what the step noted and the artefacts do not say."""
    made = {words: facts[name] for name, words in _FACTS.items() if name in facts}
    return {**made, **{name: words for name, words in facts.items() if name.startswith("removed: ")}}
