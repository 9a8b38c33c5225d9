"""Runs of recipes whose ranks are chosen, in a store of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from reaemb_bench.core.store import Store
from tests.conftest import Said
from tests.helpers.chosen_ranks import HERE, TOYS, USERS

Command = Callable[..., Said]

STORE = Path(".reaemb-bench/store")

GOOD = f"""\
title = "Toy shop"
steps = ["prepare", "rank", "floors"]
prepare = {{ use = "{TOYS}:Prepare", users = {USERS} }}
rank = {{ use = "{HERE}:Placed", mean = 4 }}
floors = {{ use = "{HERE}:Counted" }}
"""
POOR = "extends = 'good.toml'\n[rank]\nmean = 120\n"
LEAKY = f"""\
extends = 'good.toml'
steps = ["prepare", "peek", "rank", "floors"]
allow_leaks = true
peek = {{ use = "{HERE}:Peek" }}
"""


def write_recipes(folder: Path) -> None:
    """`good.toml`, `poor.toml` and `leaky.toml`."""
    for name, text in (("good", GOOD), ("poor", POOR), ("leaky", LEAKY)):
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


def run_all(command: Command, folder: Path) -> Store:
    """Run `good` with two seeds, then `poor`, then `leaky`; once a session, after that their store is copied."""
    write_recipes(folder)
    copy = folder.parent / "stored_runs"
    if copy.is_dir():
        shutil.copytree(copy, STORE)
        return Store(STORE)
    for words in (["good.toml", "--set", "seeds=[1, 2]"], ["poor.toml"], ["leaky.toml"]):
        said = command("run", *words)
        assert said.code == 0, said.err
    shutil.copytree(STORE, copy)
    return Store(STORE)


def refused(said: Said, *parts: str) -> None:
    """One line that names the mistake, and code 2."""
    assert said.code == 2, said.out
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
