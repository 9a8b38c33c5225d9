"""What both peers are asked for, and the form in which both answer."""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import MIB, Spent, machine, peak


@dataclass(frozen=True)
class Settings:
    """SASRec with cross-entropy over the whole catalogue, leave-last-two."""

    interactions: Path
    epochs: int
    patience: int
    max_steps: int | None
    threads: int
    batch_size: int
    hidden: int
    blocks: int
    heads: int
    max_length: int
    dropout: float
    learning_rate: float
    seed: int
    vectors: Path | None
    out: Path | None


def arguments(description: str, *, batch_size: int, heads: int, dropout: float) -> Settings:
    """The command line; batch size, heads and dropout default to what the peer itself would take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("interactions", type=Path, help="CSV of user, item and position in the user's history")
    parser.add_argument("--epochs", type=int, default=1, help="most passes over the training data")
    parser.add_argument("--patience", type=int, default=10, help="epochs without a better validation NDCG@10")
    parser.add_argument("--max-steps", type=int, help="time this many steps of each epoch, extrapolate, test nothing")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="rows of the peer's data set a step")
    parser.add_argument("--hidden", type=int, default=128, help="width of item vectors")
    parser.add_argument("--blocks", type=int, default=2, help="attention blocks")
    parser.add_argument("--heads", type=int, default=heads, help="attention heads a block")
    parser.add_argument("--max-length", type=int, default=50, help="most recent interactions that are read")
    parser.add_argument("--dropout", type=float, default=dropout)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--vectors", type=Path, help="npz of vectors and ids, which stay as item vectors (RecBole alone)"
    )
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    return Settings(**vars(parser.parse_args()))


def histories(file: Path) -> dict[str, list[str]]:
    """Each user's items, oldest first, from the first three columns: user, item, position."""
    rows: dict[str, list[tuple[float, str]]] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        for user, item, position, *_ in reader:
            rows.setdefault(user, []).append((float(position), item))
    return {user: [item for _, item in sorted(placed, key=lambda pair: pair[0])] for user, placed in rows.items()}


def gains(ranks: list[int], users: int) -> dict[str, float]:
    """NDCG@10 and HR@10 of the targets' ranks (0 is the best); users who are missing from `ranks` count as misses."""
    hits = [rank for rank in ranks if rank < 10]
    return {
        "ndcg@10": sum(1 / math.log2(rank + 2) for rank in hits) / users,
        "hr@10": len(hits) / users,
    }


class Best:
    """The epoch with the best validation NDCG@10, what was kept of it, and the time until it since training began."""

    def __init__(self) -> None:
        self.started = time.perf_counter(), time.process_time()
        self.spent = Spent(0.0, 0.0)
        self.value = -1.0
        self.epoch = 0
        self.epochs = 0
        self.kept: Any = None

    def offer(self, value: float, keep: Callable[[], Any]) -> None:
        """Count an epoch; if it is the best so far, keep what `keep` returns."""
        self.epochs += 1
        if value > self.value:
            self.value, self.epoch, self.kept = value, self.epochs, keep()
            wall, cpu = self.started
            self.spent = Spent(time.perf_counter() - wall, time.process_time() - cpu)

    def facts(self) -> dict[str, float]:
        """For the result file."""
        return {
            "epochs": self.epochs,
            "best_epoch": self.epoch,
            "best_validation_ndcg@10": self.value,
            "wall_seconds_to_best_epoch": self.spent.wall,
            "cpu_seconds_to_best_epoch": self.spent.cpu,
        }


def epoch(spent: list[Spent], timed_steps: int, steps: int, *, holds: str) -> dict[str, Any]:
    """The mean epoch, extrapolated from `timed_steps` of its `steps` where the epoch was cut."""
    scale = steps / timed_steps / len(spent)
    return {
        "wall_seconds": sum(timing.wall for timing in spent) * scale,
        "cpu_seconds": sum(timing.cpu for timing in spent) * scale,
        "epochs_timed": len(spent),
        "steps_timed": timed_steps,
        "steps_in_epoch": steps,
        "extrapolated": timed_steps < steps,
        "an_epoch_holds": holds,
    }


def evaluation(spent: Spent, users: int, *, does: str) -> dict[str, Any]:
    """The time of ranking the whole catalogue for all test users."""
    return {
        "users": users,
        "wall_seconds": spent.wall,
        "cpu_seconds": spent.cpu,
        "users_per_second": users / spent.wall,
        "does": does,
    }


def answer(
    peer: str,
    version: str,
    settings: Settings,
    *,
    training: dict[str, Any],
    testing: dict[str, Any],
    test: dict[str, float],
) -> dict[str, Any]:
    """The result file. Test metrics are left out where epochs were cut short, for the model is not trained then."""
    vectors = settings.vectors and settings.vectors.name
    options = asdict(settings) | {"interactions": settings.interactions.name, "vectors": vectors}
    del options["out"]
    return {
        "peer": peer,
        "version": version,
        "machine": machine(),
        "settings": options,
        "epoch": training,
        "evaluation": testing,
        "test": test if settings.max_steps is None else None,
        "peak_memory_mib": round(peak() / MIB),
    }
