"""The command line, killed without warning inside a step: `python dying_run.py crrl steps 5 0.3 run recipe.toml ...`.

Here that is 0.3 times the length of a tick after step crrl has reported that 5 of its steps are done. Checkpoints are
written as often as they can be.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from reaemb_bench.cli.app import main
from reaemb_bench.core import execute, training
from reaemb_bench.core.component import Progress
from reaemb_bench.core.plan import Job


def die_in(step: str, unit: str, done: int, wait: float) -> None:
    last = time.monotonic()

    # A subclass, because modules that are imported later ask for events of this class.
    class Ticked(execute.Progressed):
        def __init__(self, job: Job, progress: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            if (job.name, progress.unit, progress.done) == (step, unit, done):
                threading.Timer(wait * (now - last), os.kill, (os.getpid(), signal.SIGKILL)).start()
            last = now
            super().__init__(job, progress)

    execute.Progressed = Ticked  # type: ignore[misc]


if __name__ == "__main__":
    training.SECONDS = 0.0
    die_in(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    sys.argv = ["reaemb-bench", *sys.argv[5:]]
    main()
