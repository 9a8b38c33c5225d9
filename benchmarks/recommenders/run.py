"""Compare our training and evaluation with the plain loop, side by side in one process.

Every head is trained and evaluated by both sides in turn, several times over, and the middle one of the times counts.
The plain loop is given a part of an epoch and of the users, and its times are extrapolated; ours run in full. Memory
is measured in a fresh process for each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import MIB, limit_threads, machine, table, where, written
from benchmarks.recommenders.plain_networks import HEADS, Head

if TYPE_CHECKING:
    from benchmarks.recommenders.data import Prepared
    from benchmarks.recommenders.plain import Settings
    from benchmarks.recommenders.sides import Side, Timed

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results"
Measured = dict[str, Any]


def main() -> None:
    """Measure, write the result file, print the table."""
    options = arguments()
    limit_threads(options.threads)
    import torch

    from benchmarks.recommenders import data as sources
    from benchmarks.recommenders.plain import Settings

    torch.set_num_threads(options.threads)
    data = (
        sources.table(options.data)
        if options.data
        else sources.simulated(options.users, options.items, options.mean_length)
    )
    settings = Settings(max_length=options.max_length, batch_size=options.batch_size, dropout=options.dropout)
    rows = timed(data, settings, options)
    if options.memory:
        remember(rows, data, options)
    result = {
        "machine": machine(),
        "data": facts(data),
        "settings": vars(settings) | {"steps": options.steps, "repeats": options.repeats},
        "rows": rows,
    }
    written(result, options.out)
    print(markdown(result))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of interactions.csv and items.jsonl; without it, simulated")
    parser.add_argument("--users", type=int, default=22_363, help="simulated users")
    parser.add_argument("--items", type=int, default=12_101, help="simulated items")
    parser.add_argument("--mean-length", type=float, default=8.9, help="simulated interactions a user")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of both sides")
    parser.add_argument("--repeats", type=int, default=3, help="times that everything is measured")
    parser.add_argument("--steps", type=int, default=2, help="steps of an epoch that the plain loop is given")
    parser.add_argument("--evaluation-users", type=int, default=2048, help="users that the plain loop evaluates")
    parser.add_argument("--max-length", type=int, default=200, help="interactions that are read, or padded to")
    parser.add_argument("--batch-size", type=int, default=1024, help="users a step")
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="measure memory too")
    parser.add_argument("--out", type=Path, default=RESULTS / "recommenders.json")
    return parser.parse_args()


def facts(data: Prepared) -> dict[str, Any]:
    """How large the data are."""
    corpus, _, test_targets = data
    return {
        "name": corpus.name,
        "users": corpus.users,
        "items": corpus.items,
        "training_interactions": len(corpus.training.items),
        "test_users": len(test_targets.users),
    }


def timed(data: Prepared, settings: Settings, options: argparse.Namespace) -> list[Measured]:
    """One row for each head and side, with the median of its times."""
    from benchmarks.recommenders.sides import SIDES, runner

    pairs: list[tuple[Head, Side]] = [(head, side) for head in options.heads for side in SIDES]
    runners = {
        pair: runner(pair[1], pair[0], data, settings, options.steps, options.evaluation_users) for pair in pairs
    }
    times: dict[tuple[Head, Side], list[tuple[Timed, Timed]]] = {pair: [] for pair in pairs}
    for repeat in range(options.repeats):
        for pair in pairs:
            times[pair].append((runners[pair].train(), runners[pair].evaluate()))
            print(f"{repeat + 1}/{options.repeats} {' '.join(pair)}: {_said(times[pair][-1])}", file=sys.stderr)
    return [
        {
            "head": head,
            "side": side,
            "epoch": middle([epoch for epoch, _ in times[head, side]]),
            "evaluation": middle([evaluation for _, evaluation in times[head, side]]),
        }
        for head, side in pairs
    ]


def middle(times: list[Timed]) -> Measured:
    """Median seconds, their range, and which share of the work was run."""
    return {
        "wall_seconds": statistics.median(timing.wall for timing in times),
        "wall_seconds_range": [min(timing.wall for timing in times), max(timing.wall for timing in times)],
        "cpu_seconds": statistics.median(timing.cpu for timing in times),
        "share_run": times[0].share,
    }


def remember(rows: list[Measured], data: Prepared, options: argparse.Namespace) -> None:
    """Add to each row what its side needs of memory."""
    from benchmarks.recommenders.data import write

    with tempfile.TemporaryDirectory() as folder:
        write(data, Path(folder))
        for row in rows:
            command = [sys.executable, "-m", "benchmarks.recommenders.memory", row["side"], row["head"], folder]
            for name in ("threads", "max_length", "batch_size", "steps", "evaluation_users", "dropout"):
                command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
            said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
            row["memory_bytes"] = json.loads(said)


def markdown(result: Measured) -> str:
    """The table, with how many times more the plain loop takes, and what its reader must know."""
    from benchmarks.recommenders.sides import NAMES

    rows = []
    for row in result["rows"]:
        against = next(plain for plain in result["rows"] if (plain["head"], plain["side"]) == (row["head"], "plain"))
        numbers_of_both = zip(numbers(row), numbers(against), strict=True)
        rows.append([row["head"], NAMES[row["side"]], *(cell for both in numbers_of_both for cell in compared(*both))])
    headings = ["head", "side"]
    for heading in ("epoch, s", "evaluation, s", "training, MiB", "evaluation, MiB"):
        headings += [heading, ""]
    return "\n".join([table(headings, rows, left=2), "", *notes(result)])


def numbers(row: Measured) -> list[float | None]:
    """Seconds and MiB of a row; None where memory was not measured."""
    memory = row.get("memory_bytes", {})
    parts = [memory.get("training"), memory.get("evaluation")]
    return [
        row["epoch"]["wall_seconds"],
        row["evaluation"]["wall_seconds"],
        *(None if part is None else part / MIB for part in parts),
    ]


def compared(value: float | None, plain: float | None) -> tuple[str, str]:
    """A number, and how many times the plain loop's is as large."""
    if value is None or plain is None:
        return "-", ""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}", "" if value == plain else f"{plain / value:,.1f}x"


def notes(result: Measured) -> Iterator[str]:
    """What the table's reader must know."""
    data, settings = result["data"], result["settings"]
    plain = [row for row in result["rows"] if row["side"] == "plain"]
    epoch = ", ".join(f"{row['head']} {row['epoch']['share_run']:.0%}" for row in plain)
    users = plain[0]["evaluation"]["share_run"]
    yield (
        f"{data['name']}: {data['users']:,} users, {data['items']:,} items, "
        f"{data['training_interactions']:,} training interactions"
    )
    yield (
        f"length {settings['max_length']}, {settings['batch_size']:,} users a batch, hidden {settings['hidden']}; "
        f"median of {settings['repeats']}"
    )
    yield f"plain loop: extrapolated from {epoch} of an epoch and {users:.0%} of the users; 101 candidates each"
    yield "ours: whole epochs, set-up included; all users, each against the whole catalogue"
    yield where(result["machine"])


def _said(pair: tuple[Timed, Timed]) -> str:
    return f"epoch {pair[0].wall:.1f} s, evaluation {pair[1].wall:.1f} s"


if __name__ == "__main__":
    main()
