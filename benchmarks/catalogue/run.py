"""CRRL's rewards against ten candidates, a step's own neighbours and the whole catalogue: time and memory of a step.

Vectors are random; the language model's part, which does not depend on the number of candidates, is left out. Each
size runs in a process of its own, on one thread, and includes drawing what is ranked and the gradient of the rewards.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import clocked, forget_peak, limit_threads, machine, peak, resident, table, written

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parents[1] / "results" / "catalogue.json"
SOURCES = ("sampled", "batch", "catalogue")
SIZES = (2_000, 20_000, 200_000)
WIDTH, GROUPS, ROLLOUTS = 576, 128, 2


def main() -> None:
    """Measure all sizes and print Markdown, or, for a process that this one started, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="steps of each size; the median is shown")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "ITEMS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit_threads(1)
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]), options.repeats)))
        return
    rows = []
    for items in SIZES:
        for source in SOURCES:
            command = [sys.executable, "-m", "benchmarks.catalogue.run", "--one", source, str(items)]
            done = subprocess.run(
                [*command, "--repeats", str(options.repeats)], cwd=ROOT, check=True, capture_output=True, text=True
            )
            rows.append({"items": items, "candidates_from": source, **json.loads(done.stdout)})
    written({"machine": {**machine(), "threads": 1}, "groups": GROUPS, "rollouts": ROLLOUTS, "rows": rows}, options.out)
    print(
        table(
            ("items", "candidates from", "ranked by a rollout", "seconds a step", "MB above the table"),
            [
                (
                    f"{row['items']:,}",
                    row["candidates_from"],
                    f"{row['ranked']:,}",
                    f"{row['seconds']:.3f}",
                    f"{row['bytes'] / 1e6:,.0f}",
                )
                for row in rows
            ],
        )
    )


def one(source: str, items: int, repeats: int) -> dict[str, Any]:
    """Seconds of a step, and the most memory that it holds beyond the vectors and counts that are there before."""
    import numpy as np
    import torch

    from benchmarks.cooccurrence.run import simulated
    from reaemb_bench.data.cooccurrence import cooccurrence
    from reaemb_bench.rl.candidates import draw_candidates, of_batch, of_catalogue, sampled
    from reaemb_bench.rl.crrl import Judge
    from reaemb_bench.rl.rewards.softmax_likelihood import SoftmaxLikelihood

    torch.set_num_threads(1)
    pairs = cooccurrence(simulated(items * 3, items, items * 22), items)
    drawn = draw_candidates(pairs, 1, 10, 0)
    vectors = torch.randn(items, WIDTH)
    seconds, ranked = [], 0
    forget_peak()
    before = resident()
    for step in range(repeats):
        draw = np.random.default_rng(step)
        chosen = draw.choice(len(drawn.items), GROUPS, replace=False)
        rollouts = torch.randn(GROUPS, ROLLOUTS, WIDTH, requires_grad=True)
        with clocked() as spent:
            if source == "batch":
                ranking = of_batch(drawn, chosen, draw)
            else:
                ranking = of_catalogue(drawn, chosen) if source == "catalogue" else sampled(drawn, chosen)
            own = vectors if source == "catalogue" else vectors[torch.from_numpy(ranking.items)]
            columns, shares = torch.from_numpy(ranking.columns), torch.from_numpy(ranking.shares).float()
            judge = Judge(SoftmaxLikelihood(), "centred-cosine", own, columns, shares, own.mean(0))
            judge.rewards(rollouts).mean().backward()
        seconds.append(spent.cpu)
        ranked = ranking.columns.shape[1]
    return {"ranked": ranked, "seconds": statistics.median(seconds), "bytes": peak() - before}


if __name__ == "__main__":
    main()
