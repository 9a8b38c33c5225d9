"""A process that computes cells: `python -m reaemb_bench.bench.worker`. One JSON line in, JSON lines of progress out,
the last of them with the answer. It leaves at once when its standard input ends, so none outlives its owner.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from queue import SimpleQueue
from threading import Thread
from typing import Any


def main() -> None:
    """Compute cells until the standard input ends."""
    # Ctrl-C reaches the whole group of processes; the owner decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What a step prints must not come between the answers.
    os.dup2(2, 1)
    asked: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(asked,), daemon=True).start()

    def write(made: dict[str, Any]) -> None:
        answers.write(json.dumps(made) + "\n")
        answers.flush()

    from reaemb_bench.bench.cell import compute

    while True:
        answer = compute(json.loads(asked.get()), lambda line: write({"line": line}))
        write(asdict(answer))


def _listen(asked: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
