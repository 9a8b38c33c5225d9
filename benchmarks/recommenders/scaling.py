"""How our epoch, evaluation and memory grow with interactions and with items.

Each size runs in a process of its own, on random histories of that size; one that exceeds the budget is stopped, and
larger ones of its series are not tried. Beyond a number of items the softmax is estimated from sampled negatives.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    MIB,
    clocked,
    forget_peak,
    limit_threads,
    machine,
    peak,
    resident,
    table,
    where,
    written,
)

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results"
INTERACTIONS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
ITEMS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
Size = tuple[int, int]
Measured = dict[str, Any]


def main() -> None:
    """Measure every size, or, for a process that this one started, the one size it was given."""
    options = arguments()
    limit_threads(options.threads)
    if options.one:
        interactions, items = options.one
        print(json.dumps(one(interactions, items, options)))
        return
    by_interactions = [(interactions, options.fixed_items) for interactions in options.interactions]
    by_items = [(options.fixed_interactions, items) for items in options.items]
    result = {
        "machine": machine(),
        "settings": {"head": options.head, "batch_size": options.batch_size, "exact_up_to": options.exact_up_to},
        "threads": options.threads,
        "interactions": series(by_interactions, options),
        "items": series(by_items, options),
    }
    written(result, options.out)
    print(markdown(result))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--head", default="sasrec")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch-size", type=int, default=128, help="users a step")
    parser.add_argument("--interactions", type=int, nargs="*", default=list(INTERACTIONS), help="sizes of one series")
    parser.add_argument("--fixed-items", type=int, default=12_000, help="items while interactions grow")
    parser.add_argument("--items", type=int, nargs="*", default=list(ITEMS), help="sizes of the other series")
    parser.add_argument("--fixed-interactions", type=int, default=100_000, help="interactions while items grow")
    parser.add_argument("--exact-up-to", type=int, default=100_000, help="items up to which the softmax reads all")
    parser.add_argument("--evaluation-users", type=int, default=2_000, help="users evaluated; all are extrapolated")
    parser.add_argument("--budget", type=float, default=900.0, help="seconds that a size may take")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def series(sizes: list[Size], options: argparse.Namespace) -> list[Measured]:
    """Each size's numbers until one exceeds the budget."""
    rows: list[Measured] = []
    for size in sizes:
        rows.append(in_a_process(size, options))
        print(json.dumps(rows[-1]), file=sys.stderr)
        if "stopped" in rows[-1]:
            break
    return rows


def in_a_process(size: Size, options: argparse.Namespace) -> Measured:
    """One size's numbers, or that it was stopped and when."""
    interactions, items = size
    command = [sys.executable, "-m", "benchmarks.recommenders.scaling", "--one", str(interactions), str(items)]
    for name in ("head", "threads", "batch_size", "exact_up_to", "evaluation_users"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    try:
        said = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=options.budget).stdout
    except subprocess.TimeoutExpired:
        return {"interactions": interactions, "items": items, "stopped": f"after {options.budget:.0f} s"}
    except subprocess.CalledProcessError as error:
        return {"interactions": interactions, "items": items, "stopped": f"with exit code {error.returncode}"}
    measured: Measured = json.loads(said)
    return measured


def one(interactions: int, items: int, options: argparse.Namespace) -> Measured:
    """One epoch and the evaluation of some users, with the memory of each."""
    import torch

    from benchmarks.recommenders import ours
    from benchmarks.recommenders.data import synthetic
    from reaemb_bench.recommender.fit import TrainIds

    torch.set_num_threads(options.threads)
    objective = "cross-entropy" if items <= options.exact_up_to else "sampled-softmax"
    step = TrainIds(head=options.head, objective=objective, batch_size=options.batch_size, epochs=1)
    tiny = synthetic(1_000, 200)
    ours.evaluate(tiny[0], tiny[2], ours.train(step, tiny[0], tiny[1]))
    corpus, validation_targets, test_targets = synthetic(interactions, items)
    users = min(options.evaluation_users, len(test_targets.users))
    before = resident()
    forget_peak()
    with clocked() as trained:
        ranker = ours.train(step, corpus, validation_targets)
    training = peak() - before
    forget_peak()
    with clocked() as evaluated:
        ours.evaluate(corpus, test_targets, ranker, users)
    return {
        "interactions": interactions,
        "items": items,
        "objective": objective,
        "epoch_wall_seconds": trained.wall,
        "epoch_cpu_seconds": trained.cpu,
        "evaluation_users": users,
        "all_users": len(test_targets.users),
        "users_per_second": users / evaluated.wall,
        "evaluation_wall_seconds": evaluated.wall * len(test_targets.users) / users,
        "training_bytes": training,
        "evaluation_bytes": peak() - before,
    }


def markdown(result: Measured) -> str:
    """Both series as one table."""
    headings = ("interactions", "items", "loss", "epoch, s", "evaluation, s", "training, MiB", "evaluation, MiB")
    return "\n".join(
        [
            table(headings, map(cells, [*result["interactions"], *result["items"]])),
            "",
            f"{result['settings']['head']}, {result['settings']['batch_size']} users a batch; set-up included; "
            "evaluation extrapolated if the result file says so",
            where({**result["machine"], "threads": result["threads"]}),
        ]
    )


def cells(row: Measured) -> list[str]:
    """A row of the table."""
    size = [f"{row['interactions']:,}", f"{row['items']:,}"]
    if "stopped" in row:
        return [*size, f"stopped {row['stopped']}", "", "", "", ""]
    seconds = [f"{row[name]:,.1f}" for name in ("epoch_wall_seconds", "evaluation_wall_seconds")]
    memory = [f"{row[name] / MIB:,.0f}" for name in ("training_bytes", "evaluation_bytes")]
    return [*size, row["objective"], *seconds, *memory]


if __name__ == "__main__":
    main()
