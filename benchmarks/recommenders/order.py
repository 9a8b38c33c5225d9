"""What the order of each user's last interactions does to what popularity scores.

Published numbers differ in how interactions of equal time are ordered, and a file without times has one order only:
here the last `k` interactions of every user are shuffled before the last one is taken for the test, several times over.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import polars

from benchmarks.recommenders.data import table
from reaemb_bench.evaluation.metrics import hit_rate, ndcg
from reaemb_bench.evaluation.ranking import rank_targets
from reaemb_bench.recommender.simple_baselines import Popularity

CUTOFF = 10


def main() -> None:
    """Print HR@10 and NDCG@10 of popularity, whole catalogue, for each number of shuffled interactions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of interactions.csv and items.jsonl")
    parser.add_argument("--last", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="interactions that are shuffled")
    parser.add_argument("--times", type=int, default=5, help="shuffles of which the mean is taken")
    options = parser.parse_args()
    print("| shuffled | HR@10 | NDCG@10 |", "|---:|---:|---:|", sep="\n")
    for last in options.last:
        hits, gains = np.mean([scores(options.data, last, seed) for seed in range(options.times)], axis=0)
        print(f"| {last} | {hits:.4f} | {gains:.4f} |")


def scores(folder: Path, last: int, seed: int) -> tuple[float, float]:
    """Popularity's HR@10 and NDCG@10 where each user's last `last` interactions come in random order."""
    with tempfile.TemporaryDirectory() as temporary:
        changed = Path(temporary)
        shuffled(polars.read_csv(folder / "interactions.csv"), last, seed).write_csv(changed / "interactions.csv")
        shutil.copy(folder / "items.jsonl", changed)
        corpus, _, test_targets = table(changed)
    ranks = rank_targets(
        Popularity().fit(corpus),
        test_targets.histories,
        test_targets.users,
        test_targets.targets,
        test_targets.candidates,
        popularity=corpus.popularity,
    )
    hits, gains = (metric(ranks.better, ranks.tied, CUTOFF).mean() for metric in (hit_rate, ndcg))
    return float(hits), float(gains)


def shuffled(frame: polars.DataFrame, last: int, seed: int) -> polars.DataFrame:
    """The rows with new positions among each user's last `last`."""
    drawn = polars.Series("drawn", np.random.default_rng(seed).random(frame.height))
    from_end = polars.col("position").rank("ordinal", descending=True).over("user_id")
    late = polars.when(from_end <= last).then("drawn").otherwise(-1.0)
    ordered = frame.with_columns(drawn).with_columns(late.alias("late")).sort("user_id", "late", "position")
    return ordered.select("user_id", "item_id", polars.int_range(polars.len()).over("user_id").alias("position"))


if __name__ == "__main__":
    main()
