"""Steps for suites that compute next to nothing, and fail where a file says so. Loaded as a plug-in file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from reaemb_bench.core.artifacts import Corpus, Ranker, ValidationTargets, Vectors
from reaemb_bench.core.component import Context, DataAccess, Randomness, Step


class Embed(Step):
    """Ones, slowly enough for two processes to meet."""

    log: str
    """File that gets a line whenever this runs."""
    width: int = 2
    """Length of each vector."""

    def run(self, corpus: Corpus) -> Vectors:
        """(items, width)."""
        _write(self.log, "embed")
        _do_as_told(Path(self.log).with_name("embed"))
        time.sleep(0.2)
        return Vectors(np.ones((corpus.items, self.width), dtype=np.float32))


class Fit(Step):
    """A recommender that a suite can give a head."""

    log: str
    """File that gets a line whenever this runs."""
    head: str = "own"
    """Which head."""
    rate: float = 0.1
    """How fast it learns."""

    data_access: ClassVar[DataAccess] = "validation"
    randomness: ClassVar[Randomness] = "recommender"

    def run(self, corpus: Corpus, signal: ValidationTargets, vectors: Vectors, context: Context) -> Ranker:
        """Notes what it would have trained."""
        _write(self.log, f"fit {self.head} {self.rate}")
        _do_as_told(Path(self.log).with_name(f"fit-{self.head}"))
        context.note({"trained_parameters": 7, "tokens": 1000})
        return Ranker({"use": "toy"}, {"rate": np.full(3, self.rate + context.seed, dtype=np.float32)})


def _do_as_told(order: Path) -> None:
    """Follow the order in a file, if there is one: `fail`, `die`, `die once`, or `wait` until it is gone."""
    said = order.read_text(encoding="utf-8") if order.is_file() else ""
    if said == "fail":
        raise RuntimeError("out of toys")
    if said == "die once":
        order.unlink()
    if said.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    while said == "wait" and order.is_file():
        time.sleep(0.01)


def _write(log: str, line: str) -> None:
    with Path(log).open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
