"""Two processes under torchrun give what one process gives, and none of them waits for one that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import numpy as np
import pytest
import torch

from reaemb_bench.core.artifacts import Encoder, Ranks, Vectors
from reaemb_bench.core.distributed import all_reduce, all_reduce_gradients, broadcast, is_first, share, world_size
from reaemb_bench.core.execute import execute, fetch_all
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import Recipe, load
from reaemb_bench.core.store import Store
from tests.helpers.encoders import corpus  # noqa: F401 - sets torch's threads before anything runs
from tests.helpers.uneven_processes import MICRO_BATCH

FAILING = Path(__file__).parents[1] / "helpers" / "failing_step.py"
UNEVEN = Path(__file__).parents[1] / "helpers" / "uneven_processes.py"

RECIPE = """
steps = ["prepare", "llm", "lrcl", "again", "encode", "reduce", "train", "rank"]

[prepare]
source = { use = "simulated", users = 40, items = 30 }

[llm]
backbone = "tiny"

[lrcl]
use = "contrast"
loss = "info-nce"
steps = 3
batch_size = 10
learning_rate = 1e-3
lora_dropout = 0.3

[again]
use = "contrast"
loss = "info-nce"
negatives = "micro-batch"
device_batch = 4
passes = 2
steps = 2
batch_size = 10
lora_dropout = 0.3

[reduce]
reducer = { use = "pca", dimensions = 16 }

[train]
head = { use = "sasrec", hidden = 16, max_length = 10 }
epochs = 1
"""


class Together(NamedTuple):
    """A recipe that two processes have run: its place, the store, and what they printed."""

    recipe: Recipe
    store: Store
    printed: str


def torchrun(folder: Path, *more: str, start: Sequence[str] = ("-m", "reaemb_bench")) -> CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 -m reaemb_bench run recipe.toml` in `folder`."""
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(*start, "run", "recipe.toml", "--device", "cpu", *more),
    ]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "REAEMB_BENCH_MLFLOW": "", "PYTHONPATH": root}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    folder = tmp_path_factory.mktemp("together")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    ended = torchrun(folder, "--store", "store", start=[str(UNEVEN)])
    assert ended.returncode == 0, ended.stderr
    return Together(load(folder / "recipe.toml"), Store(folder / "store"), ended.stdout)


def curve(store: Store, key: str) -> list[tuple[float, float]]:
    return [(tick["loss"], tick["temperature"]) for tick in store.progress(key)]


@pytest.mark.slow
def test_two_processes_give_the_curves_and_vectors_of_one(together: Together, tmp_path: Path) -> None:
    alone = Store(tmp_path / "store")
    planned = plan(together.recipe, 42)
    execute(planned, alone, Machine(device="cpu", micro_batch=MICRO_BATCH, mlflow=""), lambda event: None)
    jobs = {job.name: job.key for job in planned.jobs}
    for step in ("lrcl", "again"):
        one, two = curve(alone, jobs[step]), curve(together.store, jobs[step])
        assert len(one) > 1
        np.testing.assert_allclose(two, one, rtol=1e-5)
        facts = together.store.manifest(jobs[step])["facts"]
        assert facts == pytest.approx(alone.manifest(jobs[step])["facts"], rel=1e-3, abs=1e-6)
    for step, vectors in fetch_all(planned, alone, Vectors).items():
        np.testing.assert_allclose(
            fetch_all(planned, together.store, Vectors)[step].values, vectors.values, atol=1e-5, err_msg=step
        )
    assert fetch_all(planned, together.store, Encoder).keys() == {"llm", "lrcl", "again"}
    assert len(fetch_all(planned, together.store, Ranks)["rank"].users) == 40


@pytest.mark.slow
def test_only_one_process_speaks(together: Together) -> None:
    lines = together.printed.splitlines()
    for step in ("prepare", "lrcl", "encode", "rank"):
        assert len([line for line in lines if line.endswith(f"{step}: starts")]) == 1
    assert len([line for line in lines if line.startswith("computed 8 steps, 0 cached")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [("raise", "error: process 1 of 2: the step is tired"), ("hang", "error: process 0 of 2: no answer from another")],
)
def test_a_process_that_fails_ends_the_others_with_one_line(tmp_path: Path, how: str, said: str) -> None:
    recipe = f"steps = ['failing']\n[failing]\nuse = '{FAILING}:Failing'\nhow = '{how}'\n"
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    ended = torchrun(tmp_path, "--store", "store", "--process-timeout", "10" if how == "hang" else "600")
    assert ended.returncode != 0
    assert next(line for line in ended.stderr.splitlines() if line.startswith("error: ")).startswith(said)
    assert ended.stderr.count("error: ") == 1
    assert not (tmp_path / "store" / "results").exists()


def test_a_process_alone_is_all_of_them() -> None:
    assert is_first() and world_size() == 1
    assert share([3, 1, 2]) == [3, 1, 2]
    assert broadcast(7, 8) == [7, 8]
    weight = torch.nn.Parameter(torch.ones(2))
    all_reduce([weight])
    all_reduce_gradients([weight])
    assert weight.tolist() == [1, 1] and weight.grad is None
