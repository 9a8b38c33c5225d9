"""Steps for sweeps that compute next to nothing, and do what a file says. Loaded as a plug-in file."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from reaemb_bench.core.artifacts import Corpus, Ranker, ValidationTargets, Vectors
from reaemb_bench.core.component import Context, DataAccess, Progress, Randomness, Step

EPOCHS = 4


class Fit(Step):
    """A recommender whose curve follows from its settings."""

    log: str
    """File that gets a line whenever this runs."""
    rate: float = Field(default=0.1, gt=0)
    """The nearer to 0.5, the better."""
    size: int = Field(default=1, ge=1)
    """How much it learns a step."""
    kind: str = "plain"
    """What it is."""

    data_access: ClassVar[DataAccess] = "validation"
    randomness: ClassVar[Randomness] = "recommender"

    def run(self, corpus: Corpus, signal: ValidationTargets, vectors: Vectors, context: Context) -> Ranker:
        """Four epochs, each a little better."""
        _write(self.log, f"fit {self.rate:.6f} {self.size} {self.kind}")
        _do_as_told(Path(self.log).with_name("order"))
        best = 1 - abs(self.rate - 0.5)
        for epoch in range(1, EPOCHS + 1):
            context.report(Progress(epoch, EPOCHS, "epochs", {"validation/ndcg@10": best * epoch / EPOCHS}))
        context.note({"best_validation_ndcg": best})
        _write(self.log, "done")
        return Ranker({"use": "toy"}, {"rate": np.full(3, self.rate, dtype=np.float32)})


def _do_as_told(order: Path) -> None:
    """Follow the order in a file, if there is one: `fail`, `die once`, `interrupt once`, `wait` until it is gone."""
    said = order.read_text(encoding="utf-8") if order.is_file() else ""
    if said.endswith("once"):
        order.unlink()
    if said == "fail":
        raise RuntimeError("out of toys")
    if said == "interrupt once":
        raise KeyboardInterrupt
    if said == "die once":
        os.kill(os.getpid(), signal.SIGKILL)
    while said == "wait" and order.is_file():
        time.sleep(0.01)


def _write(log: str, line: str) -> None:
    with Path(log).open("a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
