"""The data that benchmarks run on, through the same `prepare` step that recipes use."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Sequences, TestTargets, ValidationTargets
from reaemb_bench.core.component import Context, Progress
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.prepare import Prepare, draw_candidates

Prepared = tuple[Corpus, ValidationTargets, TestTargets]
SEED = 42
CANDIDATES = 100
SHORTEST = 5


def context(folder: Path, report: Callable[[Progress], None] = lambda tick: None) -> Context:
    """What a step is handed: the processor, the seed, and a folder for scratch."""
    return Context(seed=SEED, machine=Machine(device="cpu"), report=report, note=lambda facts: None, scratch=folder)


def prepared(source: dict[str, Any]) -> Prepared:
    """Corpus, validation and test of a source, leave-last-two, with 100 candidates a user."""
    with tempfile.TemporaryDirectory() as folder:
        return Prepare(source=source).run(context(Path(folder)))


def table(folder: Path, *attributes: str) -> Prepared:
    """A folder's `interactions.csv` (user_id, item_id, position) and `items.jsonl` (item_id, title, attributes)."""
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
            "attributes": attributes,
        }
    )


def simulated(users: int, items: int, mean_length: float) -> Prepared:
    """The made-up shop at a size."""
    return prepared({"use": "simulated", "users": users, "items": items, "mean_length": mean_length})


def synthetic(interactions: int, items: int, mean_length: float = 9.0) -> Prepared:
    """Random histories at any size in seconds: lengths from 5 fall off geometrically, popularity as 1 / rank ** 0.8.

    There is nothing to learn in them; they have the sizes of real data, not its meaning.
    """
    rng = np.random.default_rng(SEED)
    users = max(2, round(interactions / mean_length))
    lengths = SHORTEST + rng.geometric(1 / (1 + mean_length - SHORTEST), size=users) - 1
    shares = np.cumsum(np.arange(1, items + 1) ** -0.8)
    drawn = np.searchsorted(shares, rng.random(lengths.sum()) * shares[-1])
    everything = Sequences(
        rng.permutation(items)[drawn].astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    )
    ends = everything.offsets[1:]
    histories, training = _without_last(everything, 1), _without_last(everything, 2)
    candidates = draw_candidates(np.arange(users), everything, items, CANDIDATES, SEED)
    corpus = Corpus(
        name="synthetic",
        training=training,
        item_keys=tuple(map(str, range(items))),
        user_keys=tuple(map(str, range(users))),
        instruction="",
        texts=("",) * items,
        titles=("",) * items,
    )
    return (
        corpus,
        ValidationTargets(np.arange(users), everything.items[ends - 2], candidates),
        TestTargets(np.arange(users), everything.items[ends - 1], candidates, histories),
    )


def write(data: Prepared, folder: Path) -> None:
    """Store the artefacts for another process."""
    for part in data:
        inside = folder / type(part).__name__
        inside.mkdir()
        part.save(inside)


def read(folder: Path) -> Prepared:
    """What `write` stored."""
    return (
        Corpus.load(folder / "Corpus"),
        ValidationTargets.load(folder / "ValidationTargets"),
        TestTargets.load(folder / "TestTargets"),
    )


def _without_last(sequences: Sequences, count: int) -> Sequences:
    places = np.arange(len(sequences.items))
    kept = places < (sequences.offsets[1:] - count)[sequences.owners]
    return Sequences(sequences.items[kept], sequences.offsets - count * np.arange(sequences.users + 1))
