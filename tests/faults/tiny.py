"""A whole pipeline in a second or two, and what to compare of a store afterwards."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reaemb_bench.core.store import MANIFEST, Store

RECIPE = """
title = "Tiny"
steps = ["prepare", "llm", "lrcl", "crrl", "encode", "reduce", "train", "rank", "floors"]

[prepare]
source = { use = "simulated", users = 40, items = 30 }

# Nothing to warn of: warnings of a step whose result was lost, and is not needed again, are lost with it.
[llm]
backbone = "tiny"
pooling = "text-and-thought"

[lrcl]
use = "contrast"
loss = "info-nce"
steps = 4
batch_size = 8
learning_rate = 1e-3

[crrl]
use = "reinforce"
steps = 4
warmup = 0
learning_rate = 1e-3
rollouts_per_step = 16
cache_gb = 5e-4

[reduce]
reducer = { use = "pca", dimensions = 8 }

[train]
head = { use = "sasrec", hidden = 8, max_length = 10 }
epochs = 2
"""

_DIFFERS = ("seconds", "peak_memory_bytes", "peak_memory_of", "machine", "git")
# Of prompts that nobody needed to read, because the training was over when it died.
_FACTS_THAT_DIFFER = ("prompt_cache_mb", "prompts_without_room")


def words_of(folder: Path, recipe: str = RECIPE) -> tuple[str, ...]:
    """The command line that runs a recipe, which is written in `folder`, with the store in the working folder."""
    file = folder / "tiny.toml"
    file.write_text(recipe, encoding="utf-8")
    return ("run", str(file), "--store", "store", "--device", "cpu", "--cache", str(folder / "cache"))


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: what it left in `root`, the places that it passed, and its table as printed."""

    root: Path
    words: tuple[str, ...]
    places: tuple[str, ...]
    table: str
    results: dict[str, dict[str, Any]]
    records: list[dict[str, Any]]


def table_of(out: str) -> str:
    """The tables in what `run` prints, without the lines before and after them, which contain times."""
    lines = [line.rstrip() for line in out.splitlines()]
    end = next(number for number, line in enumerate(lines) if line.startswith(("computed ", "everything was cached")))
    return "\n".join(lines[lines.index("Tiny") : end])


def results_of(root: Path, leave_out: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """By key, all that a manifest says but for time, memory and caches; every file has just been checked against it."""
    store = Store(root)
    manifests = {}
    for file in (root / "results").glob(f"*/{MANIFEST}"):
        key = file.parent.name
        if key in leave_out:
            continue
        manifest = store.manifest(key)
        for name in manifest["files"]:
            store.verify(key, name.partition("/")[0])
        facts = {name: value for name, value in manifest["facts"].items() if name not in _FACTS_THAT_DIFFER}
        manifests[key] = {name: value for name, value in {**manifest, "facts": facts}.items() if name not in _DIFFERS}
    return manifests


def records_of(root: Path) -> list[dict[str, Any]]:
    """The records of all runs, but for the time and the checksum."""
    read = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((root / "runs").iterdir())]
    differs = ("finished", "git", "sealed")
    return [{name: value for name, value in record.items() if name not in differs} for record in read]


def leftovers(root: Path) -> list[str]:
    """What lies in the store and is neither a result, nor a record, nor a lock."""
    lie = [path for name in ("drafts", "partial", "trash") for path in (root / name).glob("*")]
    return [str(path.relative_to(root)) for path in [*lie, *(root / "runs").glob(".*")]]
