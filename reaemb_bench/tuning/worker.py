"""A process of a sweep: `python -m reaemb_bench.tuning.worker`. One JSON line in, lines of progress out. It leaves at
once when its standard input ends, so none outlives its owner.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from threading import Thread

from reaemb_bench.errors import UserError

REFUSED = 2
"""Exit code where nobody but a person can help."""
_ORPHANED = 3


def main() -> None:
    """Work on a sweep until it is finished."""
    # Ctrl-C reaches the whole group of processes; the owner decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sent = json.loads(sys.stdin.readline())
    Thread(target=_listen, daemon=True).start()
    os.chdir(sent["folder"])

    from reaemb_bench.tuning.sweep import Sweep
    from reaemb_bench.tuning.work import work

    try:
        work(Sweep.of_message(sent["sweep"]), lambda line: print(line, flush=True), sent["until"])
    except UserError as error:
        print(f"error: {error}", flush=True)
        sys.exit(REFUSED)


def _listen() -> None:
    sys.stdin.read()
    os._exit(_ORPHANED)


if __name__ == "__main__":
    main()
