"""`reaemb-bench store`: what lies in the store, where a result came from, and getting rid of what nobody needs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from reaemb_bench.cli.options import StorePlace, console, machine_from
from reaemb_bench.cli.results import existing_store
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.inventory import (
    DAY,
    Garbage,
    Piece,
    Stored,
    delete,
    find_garbage,
    inputs_of,
    inventory,
    key_from,
)
from reaemb_bench.core.runs import Run, differences, find, flatten, history
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.terminal import in_words, say

_KEY_CHARACTERS = 12

KeyStart = Annotated[str, typer.Argument(metavar="KEY", help="A key, or its start.")]
OlderThan = Annotated[
    float | None,
    typer.Option("--older-than", metavar="DAYS", min=0, help="Unused results stay that long. [default: 1]"),
]
KeepLast = Annotated[
    int | None, typer.Option("--keep-last", metavar="N", min=0, help="Forget all but the newest N runs first.")
]
Forget = Annotated[
    list[str] | None, typer.Option("--forget", metavar="RUN", help="Forget this run first; may be repeated.")
]
Everything = Annotated[
    bool, typer.Option("--all", help="Unused results go whatever their age, even while a process computes.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Delete; without it the command only says what it would delete.")]


def ls(store: StorePlace = None) -> None:
    """List all results: step, component, size, age and how many remembered runs use them; newest first."""
    place = _existing(store)
    results = inventory(place)
    screen, now = console(), time.time()
    table = _columns("key", "step", "component", "size", "age", "runs")
    for each in results:
        table.add_row(*_described(each, now), str(len(each.runs)))
    screen.print(table)
    unused = [each for each in results if not each.runs]
    say(screen, f"{_counted(results, 'result')}, {_size(results)}; {len(unused)} unused, {_size(unused)}")


def why(key: KeyStart, store: StorePlace = None) -> None:
    """Say what a result was made from: settings, seed, inputs and theirs, versions; and which runs use it."""
    place = _existing(store)
    whole = key_from(place, key)
    results = {each.key: each for each in inventory(place)}
    manifest = place.manifest(whole)
    identity: Mapping[str, Any] = manifest["identity"]
    screen = console()
    facts = {
        "result": whole,
        "step": manifest["step"],
        "made": f"{datetime.fromtimestamp(results[whole].made, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "took": in_words(float(manifest["seconds"])),
        "size": decimal(results[whole].size),
        "seed": "none drawn" if identity["seed"] is None else identity["seed"],
        "used by": "; ".join(_named(run) for run in results[whole].runs) or "no remembered run",
        "versions": ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
    }
    screen.print(_pairs(facts))
    screen.print("\nSettings", style="bold")
    screen.print(_pairs(flatten(identity["step"])))
    screen.print("\nMade from", style="bold")
    screen.print(_chain(place, whole, manifest))
    if nearest := _nearest(place, whole, manifest, results.values()):
        say(screen, f"\n{nearest}")


def gc(
    older_than: OlderThan = None,
    keep_last: KeepLast = None,
    forget: Forget = None,
    everything: Everything = False,
    yes: Yes = False,
    store: StorePlace = None,
) -> None:
    """Delete results that no remembered run needs, and what interrupted processes left; only says so without --yes.

    What a running process has locked is never touched. A run in progress is not remembered yet: unused results of
    less than a day stay, and all of them while any process computes in this store, unless --all. Checkpoints of
    interrupted steps stay as long as young results do.
    """
    if everything and older_than is not None:
        raise UserError("--all takes results of any age; give --older-than or --all")
    place = _existing(store)
    now = time.time()
    garbage = find_garbage(
        place,
        now=now,
        forgotten=_forgotten(place, keep_last, forget or ()),
        younger=DAY * (1 if older_than is None else older_than),
        everything=everything,
    )
    screen = console()
    _print_garbage(garbage, now, screen)
    if not yes:
        say(screen, f"would free {decimal(garbage.size)}; nothing was deleted, --yes does it")
        return
    deleted = delete(place, garbage)
    say(screen, f"deleted {_counted(deleted, 'folder')}, freed {decimal(sum(piece.size for piece in deleted))}")
    if left := len(garbage.pieces) - len(deleted):
        say(screen, f"{left} came into use meanwhile and stayed")


def _existing(store: StorePlace) -> Store:
    return existing_store(machine_from(store=store, mlflow="").store)


def _forgotten(place: Store, keep_last: int | None, wanted: Sequence[str]) -> list[Run]:
    runs = [find(place, each) for each in wanted]
    if keep_last is not None:
        runs += history(place)[keep_last:]
    return list({run.id: run for run in runs}.values())


def _print_garbage(garbage: Garbage, now: float, screen: Console) -> None:
    for run in garbage.forgotten:
        say(screen, f"forgets run {_named(run)}")
    if garbage.pieces:
        table = _columns("key", "step", "component", "size", "age", "what")
        for piece in garbage.pieces:
            table.add_row(*_of_piece(piece, now), piece.what)
        screen.print(table)
    counts = Counter(piece.what for piece in garbage.pieces)
    say(screen, ", ".join(_times(count, what) for what, count in counts.items()) or "nothing to delete")
    for reason, count in garbage.kept.items():
        say(screen, f"kept {_times(count, 'result')}: {reason}")


def _of_piece(piece: Piece, now: float) -> list[str]:
    if piece.stored is not None:
        return _described(piece.stored, now)
    return [(piece.key or piece.folder.name)[:_KEY_CHARACTERS], "", "", decimal(piece.size), ""]


def _described(each: Stored, now: float) -> list[str]:
    file, colon, attribute = each.component.rpartition(":")
    component = f"{file.rpartition('/')[2]}{colon}{attribute}"
    words = (each.step, component, decimal(each.size), _age(now - each.made))
    return [each.key[:_KEY_CHARACTERS], *(escape(word) for word in words)]


def _chain(place: Store, key: str, manifest: Mapping[str, Any]) -> Tree:
    """The inputs of a result and theirs, each subtree once."""
    tree = Tree(f"{escape(str(manifest['step']))} {key[:_KEY_CHARACTERS]}", highlight=False)
    _grow(tree, place, manifest, set())
    return tree


def _grow(tree: Tree, place: Store, manifest: Mapping[str, Any], seen: set[str]) -> None:
    for parameter, key in inputs_of(manifest).items():
        if not place.has(key):
            tree.add(f"{parameter}: {key[:_KEY_CHARACTERS]}, no longer in the store")
            continue
        made = place.manifest(key)
        branch = tree.add(f"{parameter}: {escape(str(made['step']))} {key[:_KEY_CHARACTERS]}")
        if key not in seen:
            seen.add(key)
            _grow(branch, place, made, seen)


def _nearest(place: Store, key: str, manifest: Mapping[str, Any], results: Iterable[Stored]) -> str:
    """What tells the result from the most similar other one of its step; empty where there is none."""
    here = flatten(manifest["identity"])
    others = [each.key for each in results if each.step == manifest["step"] and each.key != key]
    told = [(each, differences(flatten(place.manifest(each)["identity"]), here)) for each in others]
    if not told:
        return ""
    nearest, changes = min(told, key=lambda each: len(each[1]))
    return f"most similar to {nearest[:_KEY_CHARACTERS]}, from which it differs by {'; '.join(changes)}"


def _columns(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        right = heading in ("size", "age", "runs")
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading == "key")
    return table


def _pairs(values: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in values.items():
        table.add_row(escape(name), escape(str(value)))
    return table


def _age(seconds: float) -> str:
    return in_words(max(seconds, 0.0)) if seconds < DAY else f"{seconds / DAY:.1f} d"


def _size(results: Sequence[Stored]) -> str:
    return decimal(sum(each.size for each in results))


def _counted(things: Sequence[object], what: str) -> str:
    return _times(len(things), what)


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 or what == "remains" else f"{count} {what}s"


def _named(run: Run) -> str:
    return f"{run.id} ({run.name})"
