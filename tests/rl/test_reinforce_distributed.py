"""Two processes under torchrun reinforce as one does: the same curve and the same reasoner, but for rounding."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from reaemb_bench.core.artifacts import Encoder
from reaemb_bench.core.execute import execute, fetch_all
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.store import Store
from reaemb_bench.encoder.folder import REASONER
from tests.helpers.encoders import corpus  # noqa: F401 - sets torch's threads before anything runs

# Three groups a step are shared unequally; of one group the second process has none.
RECIPE = """
steps = ["prepare", "llm", "three", "one", "paper"]
allow_leaks = true

[prepare]
source = { use = "simulated", users = 60, items = 40 }

[llm]
backbone = "tiny"
pooling = "thought"

[three]
use = "reinforce"
rollouts_per_step = 24
steps = 4
warmup = 0
learning_rate = 1e-3
cache_gb = 2e-4

[one]
use = "reinforce"
rollouts_per_step = 8
steps = 2
warmup = 0

[paper]
use = "reinforce-leaky-paper"
rollouts_per_step = 24
steps = 2
warmup = 0
noise = 0.3
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "reaemb_bench", "run", "recipe.toml", "--device", "cpu", "--store", "together"),
    ]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "REAEMB_BENCH_MLFLOW": "", "PYTHONPATH": root}
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    together, alone = Store(tmp_path / "together"), Store(tmp_path / "alone")
    planned = plan(load(tmp_path / "recipe.toml"), 42)
    execute(planned, alone, Machine(device="cpu", mlflow=""), lambda event: None)
    for job in planned.jobs[2:]:
        one, two = alone.progress(job.key), together.progress(job.key)
        assert len(one) == len(two) == job.step.steps  # type: ignore[attr-defined]
        for name in ("loss", "reward", "clean_reward", "neighbour_percentile", "dead_groups", "shift"):
            expected = [tick[name] for tick in one]
            np.testing.assert_allclose([tick[name] for tick in two], expected, rtol=2e-3, atol=1e-5, err_msg=name)
    made, other = fetch_all(planned, alone, Encoder), fetch_all(planned, together, Encoder)
    for step in ("three", "one", "paper"):
        tensors, others = (load_file(each[step].folder / REASONER) for each in (made, other))
        moved = load_file(made["llm"].folder / REASONER)
        for name, tensor in tensors.items():
            distance = (tensor - moved[name]).norm()
            assert (tensor - others[name]).norm() <= 0.02 * distance, f"{step}: {name}"
