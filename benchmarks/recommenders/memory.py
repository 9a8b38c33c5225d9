"""Memory that one side needs to train and to evaluate, in a process of its own, which `run` starts.

Counted are bytes beyond what the process held once the data were read and a tiny run had loaded all libraries.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import get_args

from benchmarks.measuring import forget_peak, limit_threads, peak, resident


def main() -> None:
    """Read the stored data, train, evaluate, and print `{"training": bytes, "evaluation": bytes}`."""
    options = arguments()
    limit_threads(options.threads)
    print(json.dumps(measure(options)))


def measure(options: argparse.Namespace) -> dict[str, int]:
    """The peaks of a part of an epoch and of an evaluation; the plain loop's do not grow after its first batches."""
    import torch

    from benchmarks.recommenders.data import read, simulated
    from benchmarks.recommenders.plain import Settings
    from benchmarks.recommenders.sides import runner

    torch.set_num_threads(options.threads)
    data = read(options.folder)
    settings = Settings(max_length=options.max_length, batch_size=options.batch_size, dropout=options.dropout)
    tiny = runner(options.side, options.head, simulated(users=20, items=20, mean_length=6), settings, 1, 20)
    tiny.train()
    tiny.evaluate()
    before = resident()
    side = runner(options.side, options.head, data, settings, options.steps, options.evaluation_users)
    forget_peak()
    side.train()
    training = peak() - before
    forget_peak()
    side.evaluate()
    return {"training": training, "evaluation": peak() - before}


def arguments() -> argparse.Namespace:
    """The command line that `run` writes."""
    from benchmarks.recommenders.plain_networks import HEADS
    from benchmarks.recommenders.sides import Side

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=get_args(Side))
    parser.add_argument("head", choices=HEADS)
    parser.add_argument("folder", type=Path)
    for name in ("threads", "max-length", "batch-size", "steps", "evaluation-users"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--dropout", type=float, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
