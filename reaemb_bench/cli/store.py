"""`reaemb-bench store`: lists results, says where one came from, and deletes what no run needs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree
from typer import Argument, Option

from reaemb_bench.cli.options import Words, existing_store, machine_options, run_names
from reaemb_bench.cli.screen import KEY_CHARACTERS, component_name, plain_table, say, show
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine

if TYPE_CHECKING:
    from reaemb_bench.core.inventory import Stored

_DAY = 86_400.0


@machine_options("store")
def ls(machine: Machine) -> None:
    """List all results: step, component, size, age and how many remembered runs use them; newest first.

    Examples:
    reaemb-bench store ls
    """
    from reaemb_bench.core.inventory import inventory

    results, now = inventory(existing_store(machine)), time.time()
    table = _results_table("runs")
    for stored in results:
        table.add_row(*_cells(stored, now), str(len(stored.runs)))
    show(table)
    unused = [stored.size for stored in results if not stored.runs]
    size = decimal(sum(stored.size for stored in results))
    say(f"{_counted(len(results), 'result')}, {size}; {len(unused)} unused, {decimal(sum(unused))}")


@machine_options("store")
def why(machine: Machine, key: Annotated[str, Argument(metavar="KEY", help="A key, or its start.")]) -> None:
    """Show how a result was computed: settings, seed, inputs and their inputs, versions; and which runs use it.

    Examples:
    reaemb-bench store why 3f2a9c41
    """
    from reaemb_bench.core.inventory import inputs_of, inventory, key_from
    from reaemb_bench.core.plan import differences, flatten
    from reaemb_bench.tracking.terminal import in_words

    def show_pairs(values: Mapping[str, Any]) -> None:
        table = plain_table()
        for name, value in values.items():
            table.add_row(escape(name), escape(str(value)))
        show(table)

    store = existing_store(machine)
    whole = key_from(store, key)
    results = {stored.key: stored for stored in inventory(store)}
    manifest, stored = store.manifest(whole), results[whole]
    identity: Mapping[str, Any] = manifest["identity"]
    facts = {
        "result": whole,
        "step": manifest["step"],
        "made": f"{datetime.fromtimestamp(stored.created, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "took": in_words(float(manifest["seconds"])),
        "size": decimal(stored.size),
        "seed": "none drawn" if identity["seed"] is None else identity["seed"],
        "used by": "; ".join(f"{run.id} ({run.name})" for run in stored.runs) or "no remembered run",
        "versions": ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
    }
    show_pairs(facts)
    say("\nSettings", style="bold")
    show_pairs(flatten(identity["step"]))
    say("\nMade from", style="bold")
    tree = Tree(f"{escape(str(manifest['step']))} {whole[:KEY_CHARACTERS]}", highlight=False)
    expanded: set[str] = set()

    def add_inputs(branch: Tree, of: Mapping[str, Any]) -> None:
        for parameter, source in inputs_of(of).items():
            if not store.has(source):
                branch.add(f"{parameter}: {source[:KEY_CHARACTERS]}, no longer in the store")
                continue
            inner = store.manifest(source)
            twig = branch.add(f"{parameter}: {escape(str(inner['step']))} {source[:KEY_CHARACTERS]}")
            if source not in expanded:
                expanded.add(source)
                add_inputs(twig, inner)

    add_inputs(tree, manifest)
    show(tree)
    others = [other.key for other in results.values() if other.step == manifest["step"] and other.key != whole]
    known = flatten(identity)
    changes = {other: differences(flatten(store.manifest(other)["identity"]), known) for other in others}
    if changes:
        nearest = min(changes, key=lambda other: len(changes[other]))
        say(f"\nmost similar to {nearest[:KEY_CHARACTERS]}, from which it differs by {'; '.join(changes[nearest])}")


@machine_options("store")
def gc(
    machine: Machine,
    older_than: Annotated[
        float | None, Option(metavar="DAYS", min=0, help="Unused results stay that long. [default: 1]")
    ] = None,
    keep_last: Annotated[int | None, Option(metavar="N", min=0, help="Forget all but the newest N runs first.")] = None,
    forget: Annotated[Words, Option(metavar="RUN", help="Forget this run.", autocompletion=run_names)] = None,
    everything: Annotated[
        bool, Option("--all", help="Delete unused results of any age, even while a step runs.")
    ] = False,
    yes: Annotated[bool, Option("--yes", help="Delete; without it nothing is deleted.")] = False,
) -> None:
    """Delete results that no remembered run needs and what interrupted processes left; without --yes only say so.

    What a running process has locked is never touched. A run in progress is not remembered yet: unused results of
    less than a day stay, and all of them while any process computes in this store, unless --all. Checkpoints of
    interrupted steps stay as long as young results do.

    Examples:
    reaemb-bench store gc
    reaemb-bench store gc --keep-last 20 --yes
    """
    from reaemb_bench.core.inventory import delete, find_garbage
    from reaemb_bench.core.runs import find, history

    if everything and older_than is not None:
        raise UserError("--all deletes results of any age; give --older-than or --all")
    store, now = existing_store(machine), time.time()
    forgotten = [find(store, name) for name in forget or ()]
    if keep_last is not None:
        forgotten += history(store)[keep_last:]
    garbage = find_garbage(
        store,
        now=now,
        forgotten=list({run.id: run for run in forgotten}.values()),
        younger=_DAY * (1 if older_than is None else older_than),
        everything=everything,
    )
    for run in garbage.forgotten:
        say(f"forgets run {run.id} ({run.name})")
    table = _results_table("what")
    for piece in garbage.pieces:
        key = (piece.key or piece.folder.name)[:KEY_CHARACTERS]
        cells = [key, "", "", decimal(piece.size), ""] if piece.stored is None else _cells(piece.stored, now)
        table.add_row(*cells, piece.what)
    if garbage.pieces:
        show(table)
    counts = Counter(piece.what for piece in garbage.pieces)
    say(", ".join(_counted(count, what) for what, count in counts.items()) or "nothing to delete")
    for reason, count in garbage.kept.items():
        say(f"kept {_counted(count, 'result')}: {reason}")
    if not yes:
        say(f"would free {decimal(garbage.size)}; nothing was deleted, --yes does it")
        return
    deleted = delete(store, garbage)
    say(f"deleted {_counted(len(deleted), 'folder')}, freed {decimal(sum(piece.size for piece in deleted))}")
    if left := len(garbage.pieces) - len(deleted):
        say(f"{left} came into use meanwhile and stayed")


def _results_table(last: str) -> Table:
    return plain_table("key", "step", "component", "size", "age", last, right=("size", "age", "runs"), no_wrap=("key",))


def _cells(stored: Stored, now: float) -> list[str]:
    from reaemb_bench.tracking.terminal import in_words

    seconds = now - stored.created
    age = in_words(max(seconds, 0.0)) if seconds < _DAY else f"{seconds / _DAY:.1f} d"
    words = (stored.step, component_name(stored.component), decimal(stored.size), age)
    return [stored.key[:KEY_CHARACTERS], *map(escape, words)]


def _counted(count: int, noun: str) -> str:
    """Returns `1 result`, `2 results`; "remains" is a plural already."""
    return f"{count} {noun}" if count == 1 or noun == "remains" else f"{count} {noun}s"
