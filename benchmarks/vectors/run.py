"""How long a newcomer waits: two files of interactions and vectors, one command, a table.

The shop is drawn from 16 tastes, which the vectors show with noise. The files stay in `--keep`, for the peers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars

from benchmarks.measuring import machine, written

TASTES = 16


def main() -> None:
    """Print the table, then the seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--width", type=int, default=384, help="numbers of a vector")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the files")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).absolute()
        interactions = write(folder, given.users, given.items, given.width)
        words = [sys.executable, "-m", "reaemb_bench", "run", "--vectors", str(folder / "emb.parquet")]
        words += ["--data", str(folder / "shop"), "--threads", str(given.threads), "--store", f"{temporary}/store"]
        start = time.perf_counter()
        subprocess.run([*words, "--mlflow", ""], check=True)
        seconds = time.perf_counter() - start
    sizes = {"users": given.users, "items": given.items, "width": given.width, "interactions": interactions}
    print(
        written(
            {"machine": {**machine(), "threads": given.threads}, **sizes, "seconds": seconds},
            given.out and given.out.absolute(),
        )
    )


def write(folder: Path, users: int, items: int, width: int) -> int:
    """Writes shop/interactions.csv and the vectors as emb.parquet and emb.npz; returns the number of interactions."""
    draw = np.random.default_rng(42)
    of_items, of_users = draw.normal(size=(items, TASTES)), draw.normal(size=(users, TASTES))
    popularity = draw.normal(size=items)
    rows = []
    for user, taste in enumerate(of_users):
        # Gumbel noise on scores draws without replacement, the order included.
        keys = of_items @ taste / 2 + popularity + draw.gumbel(size=items)
        chosen = np.argsort(-keys)[: int(draw.integers(5, 20))]
        rows += [
            (f"u{user}", f"i{item}", 1_600_000_000 + 60 * step) for step, item in enumerate(draw.permutation(chosen))
        ]
    (folder / "shop").mkdir(parents=True, exist_ok=True)
    polars.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_csv(
        folder / "shop/interactions.csv"
    )
    vectors = (of_items @ draw.normal(size=(TASTES, width)) + 2 * draw.normal(size=(items, width))).astype(np.float32)
    ids = [f"i{item}" for item in range(items)]
    polars.DataFrame({"item": ids, "vector": vectors}).write_parquet(folder / "emb.parquet")
    np.savez(folder / "emb.npz", vectors=vectors, ids=np.array(ids))
    return len(rows)


if __name__ == "__main__":
    main()
