"""The command line in a process that would read more prompts at once than the process before it, under torchrun."""

import os

MICRO_BATCH = 3
"""Prompts at once in process 0."""

if __name__ == "__main__":
    os.environ["REAEMB_BENCH_MICRO_BATCH"] = str(MICRO_BATCH + int(os.environ["RANK"]))
    from reaemb_bench.cli.app import main

    main()
