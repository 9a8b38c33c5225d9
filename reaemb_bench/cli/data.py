"""Verbs about data: `data check` looks at your files, `data prepare` and `data describe` run a recipe's data step."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape
from typer import Argument, Option

from reaemb_bench.cli.options import DEFAULT_RECIPE, Drops, RecipeName, Sets, Words, machine_options
from reaemb_bench.cli.screen import console, plain_table, say, show
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import Recipe, load, locate
from reaemb_bench.core.store import Store

if TYPE_CHECKING:
    from reaemb_bench.core.artifacts import Corpus, TestTargets, ValidationTargets
    from reaemb_bench.core.plan import Job

_FACTS = {
    "warm_test_targets": "test targets with a training interaction",
    "cold_test_targets": "test targets without one",
    "test_users_without_training": "test users without a training interaction",
    "test_users_without_history": "users not judged because they have no history",
    "tied_test_targets": "test targets at the time of another interaction of their user",
}
"""What the data step notes -> what the table calls it."""


def check(
    paths: Annotated[list[Path], Argument(help="Interactions and items, their folder, or a recipe with a `table`.")],
    columns: Annotated[Words, Option("--column", metavar="ROLE=NAME", help="Column of user, item, title, ...")] = None,
    vectors: Annotated[
        Path | None, Option(help="Also check vectors of these items: a file or exported folder.")
    ] = None,
) -> None:
    """Check files of interactions and items: columns, order, duplicates, ids, texts, sizes; nothing is written.

    What may spoil results is marked with an exclamation mark. The settings to paste into a recipe stand at the end.

    Examples:
    reaemb-bench data check ratings.csv movies.csv
    reaemb-bench data check my_folder --column user=customer
    reaemb-bench data check my_folder --vectors emb.parquet
    """
    import polars
    import tomli_w

    from reaemb_bench.data.check import check_files, named_columns, open_files, short, source_table

    def content(values: Any) -> tuple[str, str, str]:
        """What share of a column is filled, what kind of values it holds, and the first of them."""
        nested = isinstance(values, polars.Series) and values.dtype.is_nested()
        if isinstance(values, polars.Series) and not nested:
            text = values.cast(polars.String)
            text = text.filter(text.is_not_null() & (text != ""))
            example = text[0] if len(text) else ""
        else:
            present = [value for value in values if value is not None and value != ""]
            nested = nested or any(isinstance(value, list | dict | polars.Series) for value in present)
            text = polars.Series([str(value) for value in present], dtype=polars.String)
            example = present[0] if present else ""
        filled = f"{len(text) / len(values):.1%}"
        if not len(text):
            return filled, "nothing", ""
        if nested:
            return filled, "lists", short(example)
        numeric = {"whole numbers": polars.Int64, "numbers": polars.Float64}
        fitting = (name for name, kind in numeric.items() if not text.cast(kind, strict=False).null_count())
        return filled, next(fitting, "text"), short(example)

    files = open_files(paths, named_columns(columns or ()), vectors)
    headings = ("file", "column", "taken as", "filled", "holds")
    table = plain_table(*headings, "example", no_wrap=headings)
    for sheet, roles in (
        (files.interactions, ("user", "item", "timestamp", "rating")),
        (files.items, ("item_key", "title")),
    ):
        if sheet is None:
            continue
        for column in sheet.columns:
            taken_as = ", ".join(role for role in roles if files.settings[role] == column)
            if not taken_as and sheet is files.items and column in files.settings["attributes"]:
                taken_as = "attribute"
            rows = sheet.content
            values = [row.get(column) for row in rows] if isinstance(rows, list) else rows[column]
            table.add_row(*map(escape, (sheet.file.name, column, taken_as, *content(values))))
    show(table)

    findings = check_files(files)
    shown = [finding for finding in findings if finding.count]
    table = plain_table("", "about", "what", "count", "share", "such as", right=("count", "share"))
    for finding in shown:
        mark = "[yellow]![/]" if finding.warns else ""
        share = f"{finding.count / finding.total:.1%}" if finding.total else ""
        examples = escape("; ".join(finding.examples))
        table.add_row(mark, finding.subject, escape(finding.what), f"{finding.count:,}", share, examples)
    show("", table)
    warnings = sum(finding.warns for finding in shown)
    say(f"\n{len(findings)} checks: {warnings} warn (!), {len(findings) - len(shown)} found nothing")
    if missing := next((role for role in ("interactions", "items") if getattr(files, role) is None), ""):
        say(f"A recipe also needs a file of {missing}; name both to see its settings.")
    else:
        say(f"For a recipe:\n\n{tomli_w.dumps({'prepare': {'source': source_table(files)}})}")
    if vectors is not None:
        say(f"Without a recipe: reaemb-bench run --vectors {vectors} --data {' --data '.join(map(str, paths))}")


@machine_options("store", "cache")
def prepare(machine: Machine, recipe: RecipeName = DEFAULT_RECIPE, sets: Sets = None, drops: Drops = None) -> None:
    """Run the recipe's data step alone and print what it counts.

    Examples:
    reaemb-bench data prepare quickstart
    """
    from reaemb_bench.report.expected import changes, read_expected

    loaded, edits = load(recipe, sets or (), drops or ()), changes(sets or (), drops or ())
    expected = read_expected(locate(recipe), edits)
    corpus, validation, test, facts, _ = _run_data_step(loaded, machine)
    training = corpus.training
    rows: dict[str, Any] = {
        "users": corpus.users,
        "items": corpus.items,
        "training interactions": len(training.items),
        "mean training length": f"{training.lengths.mean():,.1f}" if corpus.users else "0.0",
        "items without a training interaction": int((corpus.popularity == 0).sum()),
    }
    for name, targets in (("validation users", validation), ("test users", test)):
        if targets is not None:
            rows[name] = len(targets.users)
    rows |= {words: facts[name] for name, words in _FACTS.items() if name in facts}
    rows |= {name: words for name, words in facts.items() if name.startswith("removed: ")}
    table = plain_table("what", "count", right=("count",))
    table.title, table.title_justify = corpus.name, "left"
    for name, count in rows.items():
        table.add_row(name, count if isinstance(count, str) else f"{count:,}")
    show(table)
    if "sha256" in facts:
        say(f"sha256 of everything prepared: {facts['sha256']}")
    for name, text in facts.items():
        if name.startswith("warning: "):
            say(f"warning: {text}")
    for line in expected.counted(facts):
        say(line)


@machine_options("store", "cache")
def describe(
    machine: Machine,
    recipe: RecipeName = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    tail: Annotated[int, Option(min=1, help="Items with fewer training interactions than this are the tail.")] = 20,
    short: Annotated[int, Option(min=1, help="Histories of fewer items than this are short.")] = 10,
    out: Annotated[Path | None, Option(help="Folder of the card; by default cards/ and the data's name.")] = None,
) -> None:
    """Run the recipe's data step alone; print and write a data card: figures, long tail, lengths, terms of use.

    Examples:
    reaemb-bench data describe quickstart --out card
    """
    from reaemb_bench.core.plan import derive_seed
    from reaemb_bench.data.interactions import About
    from reaemb_bench.report.data_card import make_card, render_terminal, write

    loaded = load(recipe, sets or (), drops or ())
    corpus, validation, test, facts, job = _run_data_step(loaded, machine)
    if validation is None or test is None:
        raise UserError(f"step '{job.name}' makes no validation or no test targets, so there is no card to write")
    card = make_card(
        corpus,
        validation,
        test,
        facts,
        about=getattr(getattr(job.step, "source", None), "about", About()),
        prepared=job.step.identity(),
        tail=tail,
        short=short,
        seed=derive_seed(loaded.data_seed, "sequentiality"),
    )
    # Only characters that a folder's name may have on every system.
    folder = out or Path("cards") / (re.sub(r"[^\w.-]+", "-", card.name).strip("-.") or "data")
    try:
        write(card, folder)
    except OSError as error:
        raise UserError(f"the card cannot be written to {folder} ({error.strerror}); choose another --out") from None
    show(render_terminal(card))
    say(f"\nwritten to {folder}")


def _run_data_step(
    recipe: Recipe, machine: Machine
) -> tuple[Corpus, ValidationTargets | None, TestTargets | None, dict[str, Any], Job]:
    """What the step that makes the corpus gives and notes, and its job. Raises UserError if no step makes one."""
    from reaemb_bench.core.artifacts import Corpus, TestTargets, ValidationTargets
    from reaemb_bench.core.execute import execute, facts_of, fetch
    from reaemb_bench.core.plan import plan
    from reaemb_bench.tracking.terminal import watching

    planned, store = plan(recipe, recipe.seeds[0]), Store(machine.store)
    position = next((position for position, job in enumerate(planned.jobs) if Corpus in job.makes), None)
    if position is None:
        raise UserError("this recipe has no step that makes a Corpus, so there are no data to prepare")
    planned = replace(planned, jobs=planned.jobs[: position + 1], leaks=())
    with watching(planned, console()) as watch:
        execute(planned, store, machine, watch)
    corpus = fetch(planned, store, Corpus)
    assert corpus is not None
    targets = fetch(planned, store, ValidationTargets), fetch(planned, store, TestTargets)
    return corpus, *targets, facts_of(planned, store, Corpus), planned.jobs[-1]
