"""Compare our reading of raw Amazon reviews with plain Python: from the two published files to a split corpus.

The files are simulated in the published form. Each side does the whole job in a process of its own, in turn, and both
must make the same: the same users, sequences, targets and texts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine, table, written

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results"
Measured = dict[str, Any]


def main() -> None:
    """Measure, write the result file, print the table; or, for a process that this one started, run one side."""
    options = arguments()
    if options.one:
        from benchmarks.ingest import sides

        run = sides.plain if options.one == "plain" else sides.ours
        print(json.dumps(run(options.folder / "reviews.jsonl", options.folder / "metadata.jsonl")))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        sizes = simulate(Path(folder), options.lines)
        rows = compared(Path(folder), options)
    result = {
        "machine": {**machine(), "threads": options.threads, "polars": importlib.metadata.version("polars")},
        "data": sizes,
        "repeats": options.repeats,
        "rows": rows,
    }
    written(result, options.out)
    print(markdown(result))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=5_000_000, help="reviews to simulate; items are a 34th of them")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads that ours is given")
    parser.add_argument("--repeats", type=int, default=1, help="times that everything is measured")
    parser.add_argument("--folder", type=Path, help="where the simulated files stand for the while")
    parser.add_argument("--out", type=Path, default=RESULTS / "ingest.json")
    parser.add_argument("--one", choices=["plain", "ours"], help=argparse.SUPPRESS)
    return parser.parse_args()


def simulate(folder: Path, lines: int) -> Measured:
    """Write both files; gives their sizes."""
    from benchmarks.ingest.simulate import write_metadata, write_reviews

    _, items = write_reviews(folder / "reviews.jsonl", lines)
    write_metadata(folder / "metadata.jsonl", items)
    sizes = {f"{file.stem}_bytes": file.stat().st_size for file in sorted(folder.iterdir())}
    return {"reviews": lines, "items": items, **sizes}


def compared(folder: Path, options: argparse.Namespace) -> list[Measured]:
    """One row for each side and number of threads, with the median of its times. Raises where the sides differ."""
    settings = [("plain", 1), *(("ours", threads) for threads in options.threads)]
    runs: dict[tuple[str, int], list[Measured]] = {setting: [] for setting in settings}
    for _ in range(options.repeats):
        for side, threads in settings:
            runs[side, threads].append(one(folder, side, threads))
    corpora = [run["made"] for repeats in runs.values() for run in repeats]
    if any(corpus != corpora[0] for corpus in corpora):
        raise SystemExit(f"the two sides do not make the same: {corpora}")
    return [
        {
            "side": side,
            "threads": threads,
            "wall_seconds": statistics.median(run["wall_seconds"] for run in repeats),
            "cpu_seconds": statistics.median(run["cpu_seconds"] for run in repeats),
            "peak_bytes": max(run["peak_bytes"] for run in repeats),
            "made": repeats[0]["made"],
        }
        for (side, threads), repeats in runs.items()
    ]


def one(folder: Path, side: str, threads: int) -> Measured:
    """One side's whole job in a fresh process with that many threads."""
    limits = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    command = [sys.executable, "-m", "benchmarks.ingest.run", "--one", side, "--folder", str(folder)]
    ended = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **limits}
    )
    measured: Measured = json.loads(ended.stdout)
    said = f"{side}, {threads} threads: {measured['wall_seconds']:.1f} s, {measured['peak_bytes'] / 1e9:.2f} GB"
    print(said, file=sys.stderr)
    return measured


def markdown(result: Measured) -> str:
    """The table, with how many times more the plain loop takes."""
    plain, size = result["rows"][0], result["rows"][0]["made"]
    rows = []
    for row in result["rows"]:
        cells = [row["side"], str(row["threads"])]
        for name, form, unit in (("wall_seconds", ".1f", 1), ("cpu_seconds", ".1f", 1), ("peak_bytes", ".2f", 1e9)):
            cells += [format(row[name] / unit, form), "" if row is plain else f"{plain[name] / row[name]:.1f}x"]
        rows.append(cells)
    data, facts = result["data"], result["machine"]
    return "\n".join(
        [
            table(("side", "threads", "wall, s", "", "CPU, s", "", "peak, GB", ""), rows),
            "",
            f"{data['reviews']:,} reviews ({data['reviews_bytes'] / 1e9:.2f} GB) of {data['items']:,} items "
            f"({data['metadata_bytes'] / 1e9:.2f} GB) to {size['interactions']:,} interactions of {size['users']:,} "
            f"users with {size['items']:,} items; {facts['processor']}, {facts['cores']} cores, "
            f"polars {facts['polars']}, {facts['date']}",
        ]
    )


if __name__ == "__main__":
    main()
