"""Which of our own Python functions an epoch spends its time in, numpy's and torch's work not counted."""

from __future__ import annotations

import argparse
import cProfile
import pstats
from pathlib import Path

from benchmarks.measuring import limit_threads
from benchmarks.recommenders.plain_networks import HEADS


def main() -> None:
    """Train each head for an epoch under cProfile and print its costliest functions of ours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of interactions.csv and items.jsonl; without it, simulated")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--top", type=int, default=4, help="functions to print")
    options = parser.parse_args()
    limit_threads(options.threads)

    from benchmarks.recommenders import ours
    from benchmarks.recommenders.data import simulated, table

    corpus, validation_targets, _ = table(options.data) if options.data else simulated(22_363, 12_101, 8.9)
    shared = {"hidden": 64, "max_length": 50, "dropout": 0.3}
    for head in options.heads:
        step = ours.training(head, "sound", shared=shared, batch_size=128, epochs=1)
        profile = cProfile.Profile()
        profile.runcall(ours.train, step, corpus, validation_targets)
        total, own = own_times(profile)
        print(f"{head}: {total:.1f} s with the profiler")
        for name, seconds in own[: options.top]:
            print(f"  {seconds / total:6.2%}  {name}")


def own_times(profile: cProfile.Profile) -> tuple[float, list[tuple[str, float]]]:
    """All seconds, and those of each function of ours without what it calls, the largest first."""
    stats = pstats.Stats(profile)
    own = [
        (f"{Path(file).parent.name}/{Path(file).name}:{name}", row[2])
        for (file, _, name), row in stats.stats.items()  # type: ignore[attr-defined]
        if "reaemb_bench" in file
    ]
    return stats.total_tt, sorted(own, key=lambda entry: -entry[1])  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
