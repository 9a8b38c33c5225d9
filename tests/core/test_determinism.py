"""The same recipe gives the same bits in any process and next to any other; the switch for GPUs reaches every step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reaemb_bench.core.store import Store
from tests.conftest import TOYS, Said

Command = Callable[..., Said]

LEARN = """
steps = ["prepare", "train", "rank"]
prepare = { source = { use = "simulated", users = 60, items = 40 } }
train = { use = "train-ids", epochs = 2, head = { use = "sasrec", hidden = 16 } }
"""
SUITE = """
methods = [
  { recipe = "learn.toml", name = "learn" },
  { recipe = "learn.toml", name = "bce", set = { train.objective = "bce" } },
]
seeds = [1]
data.shop = { source = { use = "simulated", users = 60, items = 40 } }
"""
WATCH = """
import torch
from reaemb_bench import Corpus, Vectors
from reaemb_bench import Step
from reaemb_bench import Context

class Watch(Step):
    scatter: bool = False
    def run(self, corpus: Corpus, context: Context) -> Vectors:
        context.note({"set": int(torch.are_deterministic_algorithms_enabled())})
        made = torch.ones(corpus.items, 2)
        if self.scatter:
            made.put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
        return Vectors(made.numpy())
"""


def numbers(store: Path) -> dict[str, bytes]:
    """All files of results but the manifests, which tell seconds."""
    made = (file for file in (store / "results").rglob("*") if file.is_file() and file.name != "manifest.json")
    return {str(file.relative_to(store)): file.read_bytes() for file in made}


@pytest.mark.slow
def test_processes_and_jobs_change_no_bit(command: Command, tmp_path: Path) -> None:
    (tmp_path / "learn.toml").write_text(LEARN, encoding="utf-8")
    (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
    for jobs in (1, 2):
        said = command("bench", "suite.toml", "--jobs", jobs, "--threads", 1, "--device", "cpu", "--store", f"s{jobs}")
        assert said.code == 0, said.out
    alone, beside = numbers(Path("s1")), numbers(Path("s2"))
    assert sum(name.endswith("ranks.parquet") for name in alone) >= 2
    assert alone.keys() == beside.keys()
    assert [name for name, content in alone.items() if beside[name] != content] == []


def test_the_switch_changes_no_bit_on_a_cpu_and_no_key(command: Command, tmp_path: Path) -> None:
    (tmp_path / "learn.toml").write_text(LEARN, encoding="utf-8")
    for store, more in (("plain", []), ("switched", ["--deterministic"])):
        assert command("run", "learn.toml", "--device", "cpu", "--store", store, *more).code == 0
    assert numbers(Path("plain")) == numbers(Path("switched"))
    manifests = [json.loads(file.read_text()) for file in Path("switched/results").glob("*/manifest.json")]
    assert all(each["machine"]["deterministic"] for each in manifests)
    assert all({"device", "precision", "threads"} <= each["machine"].keys() and "git" in each for each in manifests)
    assert "everything was cached" in command("run", "learn.toml", "--device", "cpu", "--store", "switched").out


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    """A recipe whose step notes whether torch's algorithms must be deterministic while it runs."""
    (tmp_path / "watch.py").write_text(WATCH, encoding="utf-8")
    file = tmp_path / "watch.toml"
    file.write_text(
        f"steps = ['prepare', 'embed']\nprepare = {{use = '{TOYS}:Prepare'}}\nembed = {{use = 'watch.py:Watch'}}\n"
    )
    return file


@pytest.mark.parametrize(("more", "expected"), [([], 0), (["--deterministic"], 1)])
def test_the_switch_is_on_while_a_step_runs_and_off_behind_it(
    more: list[str], expected: int, command: Command, watched: Path
) -> None:
    import torch

    assert command("run", watched, *more).code == 0
    assert not torch.are_deterministic_algorithms_enabled()
    store = Store(Path(".reaemb-bench/store"))
    manifests = [store.manifest(folder.name) for folder in (store.root / "results").iterdir()]
    assert [each["facts"]["set"] for each in manifests if each["step"] == "embed"] == [expected]
    assert {each["machine"]["deterministic"] for each in manifests} == {bool(expected)}


def test_an_operation_that_cannot_repeat_is_one_line_under_the_switch(command: Command, watched: Path) -> None:
    assert command("run", watched, "--set", "embed.scatter=true").code == 0
    said = command("run", watched, "--set", "embed.scatter=true", "--deterministic", "--store", "other")
    assert said.code == 2
    assert said.err.startswith("error: --deterministic: put_ does not have a deterministic implementation")
    assert said.err.count("\n") == 1
