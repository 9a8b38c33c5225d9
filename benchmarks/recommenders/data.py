"""The data that benchmarks run on, through the same `prepare` step that recipes use."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from reaemb_bench.artifacts import Corpus, Holdout, Signal
from reaemb_bench.context import Context
from reaemb_bench.machine import Machine
from reaemb_bench.steps.prepare import Prepare

Prepared = tuple[Corpus, Signal, Holdout]
SEED = 42


def context(folder: Path, report: Any = lambda tick: None) -> Context:
    """What a step is handed: the processor, the seed, and a folder for scratch."""
    return Context(seed=SEED, machine=Machine(device="cpu"), report=report, note=lambda facts: None, scratch=folder)


def prepared(source: dict[str, Any]) -> Prepared:
    """Corpus, validation and test of a source, leave-last-two, with 100 candidates a user."""
    with tempfile.TemporaryDirectory() as folder:
        return Prepare(source=source).run(context(Path(folder)))


def table(folder: Path) -> Prepared:
    """A folder's `interactions.csv` (user_id, item_id, position) and `items.jsonl` (item_id, title)."""
    return prepared(
        {
            "use": "table",
            "interactions": str(folder / "interactions.csv"),
            "items": str(folder / "items.jsonl"),
            "user": "user_id",
            "item": "item_id",
            "timestamp": "position",
            "item_key": "item_id",
            "title": "title",
        }
    )


def simulated(users: int, items: int, mean_length: float) -> Prepared:
    """The made-up shop at a size."""
    return prepared({"use": "simulated", "users": users, "items": items, "mean_length": mean_length})
