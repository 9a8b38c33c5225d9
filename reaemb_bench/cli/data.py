"""`reaemb-bench data`: fetch and divide a recipe's data, nothing more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

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
from reaemb_bench.core.artifacts import Corpus, TestTargets, ValidationTargets
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import execute, facts_of, fetch
from reaemb_bench.core.plan import Plan, derive_seed
from reaemb_bench.core.plan import plan as plan_recipe
from reaemb_bench.core.recipe import load, locate
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.groups import SHORT, TAIL
from reaemb_bench.report.expected import changes, read_expected
from reaemb_bench.tracking.terminal import say, watching

if TYPE_CHECKING:
    from reaemb_bench.data.check import Files, Finding
    from reaemb_bench.data.tables import Sheet
    from reaemb_bench.report.data_card import Card


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
    validation_targets = fetch(planned, results, ValidationTargets)
    test_targets = fetch(planned, results, TestTargets)
    if validation_targets is not None:
        rows["validation users"] = len(validation_targets.users)
    if test_targets is not None:
        rows["test users"] = len(test_targets.users)
    for name, count in {**rows, **_noted(facts_of(planned, results, Corpus))}.items():
        table.add_row(name, count if isinstance(count, str) else f"{count:,}")
    return table


def _noted(facts: Mapping[str, Any]) -> dict[str, float | str]:
    """Rows for what the step noted and the artefacts do not say."""
    made = {words: facts[name] for name, words in _FACTS.items() if name in facts}
    return {**made, **{name: words for name, words in facts.items() if name.startswith("removed: ")}}


# `reaemb-bench data check`: what one's own files hold, before a recipe reads them.


_SUBJECTS = ("size", "order", "duplicates", "ids", "texts")

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...", help="A file of interactions and one of items, their folder, or a recipe with a `table`."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=NAME",
        help="Column of user, item, timestamp, rating, item_key or title; may be repeated.",
    ),
]


def check(paths: Paths, columns: Columns = None) -> None:
    """Check files of interactions and items: columns, order, duplicates, ids, texts, sizes; nothing is written.

    What may spoil results is marked with an exclamation mark. The settings to paste into a recipe stand at the end.
    """
    from reaemb_bench.data.check import named_columns, open_files

    files = open_files(paths, named_columns(columns or ()))
    screen = console()
    screen.print(_columns_table(files))
    screen.print()
    findings = _findings(files)
    shown = [each for each in findings if each.count]
    screen.print(_findings_table(shown))
    warnings = sum(each.warns for each in shown)
    say(screen, f"\n{len(findings)} checks: {warnings} warn (!), {len(findings) - len(shown)} found nothing")
    say(screen, _source(files))


def _findings(files: Files) -> list[Finding]:
    """All findings, by subject in a fixed order."""
    from reaemb_bench.data import check as ids
    from reaemb_bench.data import check as rows
    from reaemb_bench.data import check as texts

    made: list[Finding] = []
    frame = item_keys = None
    if files.interactions is not None:
        frame, made = rows.interactions_of(files, files.interactions)
        made += [*rows.sizes(frame), *rows.order(frame), *rows.duplicates(frame)]
        made += [*ids.suspicious(frame["user"], "users"), *ids.suspicious(frame["item"], "items")]
    if files.items is not None:
        item_keys = texts.keys_of_items(files, files.items)
        made += texts.texts(files, files.items, item_keys)
        if frame is None:
            made += ids.suspicious(item_keys, "items")
    if frame is not None and item_keys is not None:
        made += ids.meeting(frame, item_keys)
    return sorted(made, key=lambda each: _SUBJECTS.index(each.subject))


def _columns_table(files: Files) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("file", "column", "taken as", "holds", "example"):
        table.add_column(heading, no_wrap=heading != "example")
    for sheet in (files.interactions, files.items):
        for column in () if sheet is None else sheet.columns:
            assert sheet is not None
            content, example = _content(sheet, column)
            role = _role(files, sheet, column)
            table.add_row(*(escape(text) for text in (sheet.file.name, column, role, content, example)))
    return table


def _role(files: Files, sheet: Sheet, column: str) -> str:
    roles = ("user", "item", "timestamp", "rating") if sheet is files.interactions else ("item_key", "title")
    named = [role for role in roles if files.settings[role] == column]
    if not named and sheet is files.items and column in files.settings["attributes"]:
        return "attribute"
    return ", ".join(named)


def _content(sheet: Sheet, column: str) -> tuple[str, str]:
    """What kind of values a column holds, and the first of them."""
    import polars

    from reaemb_bench.data.check import short

    values = [row.get(column) for row in sheet.rows()] if isinstance(sheet.content, list) else sheet.content[column]
    present = [value for value in values if value is not None and value != ""]
    example = short(present[0]) if present else ""
    if not present:
        return "nothing", example
    if any(isinstance(value, list | dict | polars.Series) for value in present):
        return "lists", example
    text = polars.Series([str(value) for value in present], dtype=polars.String)
    for name, kind in (("whole numbers", polars.Int64), ("numbers", polars.Float64)):
        if not text.cast(kind, strict=False).null_count():
            return name, example
    return "text", example


def _findings_table(findings: list[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("about", "what", "count", "share", "such as"):
        table.add_column(heading, justify="right" if heading in ("count", "share") else "left")
    for each in findings:
        mark = "[yellow]![/]" if each.warns else ""
        share = f"{each.count / each.total:.1%}" if each.total else ""
        examples = escape("; ".join(each.examples))
        table.add_row(mark, each.subject, escape(each.what), f"{each.count:,}", share, examples)
    return table


def _source(files: Files) -> str:
    """The settings as a recipe has them, or what is missing for them."""
    import tomli_w

    from reaemb_bench.data.check import source_table

    for missing in ("interactions", "items"):
        if getattr(files, missing) is None:
            return f"A recipe needs a file of {missing} too; name both to see its settings."
    return f"For a recipe:\n\n{tomli_w.dumps({'prepare': {'source': source_table(files)}})}"


# `reaemb-bench data describe`: a data card of what a recipe prepares.


Out = Annotated[Path | None, typer.Option("--out", help="Folder of the card; by default cards/ and the data's name.")]
Tail = Annotated[int, typer.Option("--tail", min=1, help="Training interactions that lift an item out of the tail.")]
Short = Annotated[int, typer.Option("--short", min=1, help="Items from which on a history is no short one.")]


def describe(
    recipe: RecipePlace = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    tail: Tail = TAIL,
    short: Short = SHORT,
    out: Out = None,
    store: StorePlace = None,
    cache: CachePlace = None,
) -> None:
    """Run the recipe's data step alone; print and write a data card: figures, long tail, lengths, terms of use."""
    from reaemb_bench.report.data_card import render_terminal as render
    from reaemb_bench.report.data_card import write

    machine = machine_from(store=store, cache=cache, mlflow="")
    read = load(recipe, sets or (), drops or ())
    planned = until_corpus(plan_recipe(read, read.seeds[0]))
    results = Store(machine.store)
    screen = console()
    with watching(planned, screen) as watch:
        execute(planned, results, machine, watch)
    card = _card(planned, results, tail, short)
    folder = out if out is not None else Path("cards") / _folder_name(card.name)
    try:
        write(card, folder)
    except OSError as error:
        raise UserError(f"the card cannot be written to {folder} ({error.strerror}); choose another --out") from None
    screen.print(render(card))
    screen.print(f"\nwritten to {folder}", markup=False, highlight=False, soft_wrap=True)


def _card(planned: Plan, results: Store, tail: int, short: int) -> Card:
    from reaemb_bench.data.interactions import About
    from reaemb_bench.report.data_card import make_card

    job = planned.jobs[-1]
    corpus, validation_targets = fetch(planned, results, Corpus), fetch(planned, results, ValidationTargets)
    test_targets = fetch(planned, results, TestTargets)
    if corpus is None or validation_targets is None or test_targets is None:
        raise UserError(f"step '{job.name}' makes no validation or no test targets, so there is no card to write")
    return make_card(
        corpus,
        validation_targets,
        test_targets,
        facts_of(planned, results, Corpus),
        about=getattr(getattr(job.step, "source", None), "about", About()),
        prepared=job.step.identity(),
        tail=tail,
        short=short,
        seed=derive_seed(planned.recipe.data_seed, "sequentiality"),
    )


def _folder_name(name: str) -> str:
    """The name with nothing in it that a folder's name may not have anywhere."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data"
