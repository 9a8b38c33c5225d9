"""Runs that are killed and started again end with the bits of a run that nobody disturbed.

REAEMB_BENCH_KILLS=50 kills that often, at other places, instead of a few times.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reaemb_bench.core import training
from reaemb_bench.core.training import Checkpoints, Curve
from tests.conftest import Said
from tests.helpers.encoders import corpus  # noqa: F401 - sets torch's threads before anything runs

DYING = Path(__file__).parents[1] / "helpers" / "dying_run.py"
STEPS = 8

RECIPE = f"""
steps = ["prepare", "llm", "lrcl", "crrl", "encode"]

[prepare]
source = {{ use = "simulated", users = 60, items = 40 }}

[llm]
backbone = "tiny"

[lrcl]
use = "contrast"
steps = {STEPS}
batch_size = 8
learning_rate = 1e-3

[crrl]
use = "reinforce"
steps = {STEPS}
warmup = 0
learning_rate = 1e-3
cache_gb = 8e-4
"""


def places() -> list[tuple[str, str, int, float]]:
    """Where to kill: step, unit and number of the tick, and ticks to wait behind it; each later than the one before."""
    draw = np.random.default_rng(0)
    kills = int(os.environ.get("REAEMB_BENCH_KILLS", 0))
    if not kills:
        return [
            ("lrcl", "steps", int(draw.integers(1, STEPS)), float(draw.random())),
            ("crrl", "prompts", 16, float(draw.random())),
            ("crrl", "steps", int(draw.integers(2, STEPS)), float(draw.random())),
        ]
    where = [("lrcl", "steps"), ("crrl", "prompts"), ("crrl", "steps")]
    drawn = [(*where[draw.integers(3)], int(draw.integers(1, STEPS)), float(draw.random())) for _ in range(kills)]
    drawn = [(step, unit, 8 * (done // 2 + 1) if unit == "prompts" else done, wait) for step, unit, done, wait in drawn]
    return sorted(drawn, key=lambda each: (where.index(each[:2]), each[2]))


def files_of(store: Path) -> dict[str, bytes]:
    """All numbers that steps have made: tensors and curves. Other files tell folders and seconds, which differ."""
    made = [*(store / "results").rglob("*.safetensors"), *(store / "results").rglob("progress.jsonl")]
    return {str(file.relative_to(store)): file.read_bytes() for file in made}


@pytest.mark.slow
def test_killed_runs_end_with_the_bits_of_an_undisturbed_one(command: Callable[..., Said], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    words = [str(each) for each in ("run", recipe, "--device", "cpu", "--threads", 1, "--cache", tmp_path / "cache")]
    assert command(*words, "--store", tmp_path / "whole").code == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DYING.parent.parent)}
    for step, unit, done, wait in places():
        command_line = [sys.executable, DYING, step, unit, str(done), str(wait), *words, "--store", tmp_path / "killed"]
        died = subprocess.run(command_line, env=environment, capture_output=True, text=True, check=False)
        assert died.returncode == -signal.SIGKILL, died.stderr
    assert command(*words, "--store", tmp_path / "killed").code == 0
    whole, killed = files_of(tmp_path / "whole"), files_of(tmp_path / "killed")
    assert any("/vectors/" in name for name in whole)
    assert sum(name.endswith("encoder/reasoner.safetensors") for name in whole) == 3
    assert whole.keys() == killed.keys()
    assert [name for name, content in whole.items() if killed[name] != content] == []
    assert not list((tmp_path / "killed" / "partial").iterdir())


def trained(folder: Path) -> tuple[Checkpoints, nn.Parameter, torch.optim.Optimizer]:
    """Checkpoints of one parameter of 3 numbers under AdamW."""
    parameter = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([parameter], lr=0.1)
    return Checkpoints(folder, optimiser), parameter, optimiser


def train(folder: Path, steps: int) -> tuple[list[torch.Tensor], Curve]:
    """Go on from what is in the folder up to `steps`; the parameter after each step that was done, and the curve."""
    checkpoints, parameter, optimiser = trained(folder)
    curve, passed = checkpoints.curve, []
    for step in range(len(curve), steps):
        optimiser.zero_grad()
        (parameter * torch.arange(3) * (step + 1)).square().sum().backward()
        optimiser.step()
        curve.append({"second": step / 3, "first": parameter.sum().item()})
        checkpoints.save()
        passed.append(parameter.detach().clone())
    return passed, curve


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints as often as they can be written."""
    monkeypatch.setattr(training, "SECONDS", 0.0)


@pytest.mark.usefixtures("always")
def test_a_restored_optimiser_goes_on_exactly_and_two_checkpoints_are_kept(tmp_path: Path) -> None:
    whole, curve = train(tmp_path / "whole", 6)
    train(tmp_path / "broken", 4)
    assert len(list((tmp_path / "broken").iterdir())) == 2
    rest, again = train(tmp_path / "broken", 6)
    assert len(rest) == 2
    assert all(torch.equal(one, other) for one, other in zip(whole[4:], rest, strict=True))
    assert again == curve
    assert [list(values) for values in again] == [["second", "first"]] * 6


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(harm: str, tmp_path: Path) -> None:
    whole, curve = train(tmp_path / "whole", 6)
    train(tmp_path / "broken", 4)
    newest = max((tmp_path / "broken").iterdir())
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content if harm == "flipped" else content[:-10])
    rest, again = train(tmp_path / "broken", 6)
    assert len(rest) == 3
    assert torch.equal(whole[-1], rest[-1])
    assert again == curve


def test_checkpoints_are_a_minute_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr(training.time, "monotonic", lambda: seconds)  # type: ignore[attr-defined]
    checkpoints, parameter, optimiser = trained(tmp_path)
    parameter.sum().backward()
    optimiser.step()
    for seconds, files in ((59.0, 0), (61.0, 1), (119.0, 1), (122.0, 2)):
        checkpoints.curve = [{"loss": 1.0}] * int(seconds)
        checkpoints.save()
        assert len(list(tmp_path.iterdir())) == files


def test_nothing_is_restored_where_nothing_was_saved(tmp_path: Path) -> None:
    checkpoints, parameter, _ = trained(tmp_path / "none")
    assert checkpoints.curve == []
    assert torch.equal(parameter, torch.ones(3))
