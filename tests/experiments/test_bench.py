"""Suites, through the real command line: methods by data sets by heads by seeds in one store."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from reaemb_bench.experiments.bench import grid, read_suite
from tests.conftest import TOYS, Said

pytestmark = pytest.mark.slow

Command = Callable[..., Said]

PARTS = Path(__file__).parents[1] / "helpers" / "bench_steps.py"
TOY_STEPS = f"""
steps = ["prepare", "embed", "train", "rank"]
prepare = {{ use = "{TOYS}:Prepare" }}
rank = {{ use = "{TOYS}:Judge" }}
"""
TOY_SUITE = f"""
title = "Toys"
methods = [
  {{ recipe = "toy.toml", name = "slow" }},
  {{ recipe = "toy.toml", name = "fast", set = {{ train.rate = 0.5 }} }},
]
seeds = [1, 2]
data.toys = {{ use = "{TOYS}:Prepare" }}
heads.a = {{ head = "a" }}
heads.b = {{ head = "b" }}
"""


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    """A suite of two methods, two heads and two seeds, and the file in which its steps say that they run."""
    log = tmp_path / "log"
    parts = f'embed = {{ use = "{PARTS}:Embed", log = "{log}" }}\ntrain = {{ use = "{PARTS}:Fit", log = "{log}" }}\n'
    (tmp_path / "toy.toml").write_text(TOY_STEPS + parts, encoding="utf-8")
    (tmp_path / "suite.toml").write_text(TOY_SUITE, encoding="utf-8")
    return log


def ran(log: Path) -> Counter[str]:
    return Counter(log.read_text(encoding="utf-8").splitlines()) if log.is_file() else Counter()


ONCE_EACH = {"embed": 1, **{f"fit {head} {rate}": 2 for head in "ab" for rate in (0.1, 0.5)}}


def values(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The cells of a JSON file by table and method."""
    read = json.loads(file.read_text(encoding="utf-8"))
    return {(table["title"], row["method"]): row["cells"] for table in read["tables"] for row in table["rows"]}


def missing(file: Path) -> list[str]:
    """The notes of a JSON file on cells that are not there."""
    tables = json.loads(file.read_text(encoding="utf-8"))["tables"]
    return [note for table in tables for note in table["notes"] if note.startswith("missing")]


THEIR_COMPONENT = '''
import numpy as np

from reaemb_bench import Corpus, Vectors
from reaemb_bench import Step


class Initials(Step):
    """Count the letters of each title."""

    def run(self, corpus: Corpus) -> Vectors:
        """(items, 26)."""
        rows = [[title.lower().count(chr(97 + place)) for place in range(26)] for title in corpus.titles]
        return Vectors(np.array(rows, dtype=np.float32))
'''

REAL_SUITE = """
methods = ["theirs/recipe.toml", { recipe = "ids.toml", proposed = true }]
seeds = [1, 2]
data.shop.source = { use = "simulated", users = 30, items = 20 }
train = { epochs = 1, batch_size = 32 }
heads.SASRec.head = { use = "sasrec", hidden = 8, max_length = 8, blocks = 1 }
heads.GRU4Rec.head = { use = "gru4rec", hidden = 8, max_length = 8 }
"""


def test_a_method_in_a_file_of_ones_own_stands_beside_ids_under_every_head(command: Command, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "component.py").write_text(THEIR_COMPONENT, encoding="utf-8")
    theirs = 'steps = ["prepare", "embed", "train", "rank"]\nprepare.source = "movielens-100k"\n'
    (tmp_path / "theirs" / "recipe.toml").write_text(f'{theirs}embed.use = "component.py:Initials"\n', encoding="utf-8")
    ids = 'steps = ["prepare", "train", "rank"]\nprepare.source = "movielens-100k"\ntrain.use = "train-ids"\n'
    (tmp_path / "ids.toml").write_text(ids, encoding="utf-8")
    (tmp_path / "suite.toml").write_text(REAL_SUITE, encoding="utf-8")
    said = command("bench", "suite.toml", "--threads", 1, "--out", "table.json")
    assert said.code == 0, said.err
    manifests = Path(".reaemb-bench/store/results").glob("*/manifest.json")
    computed = Counter(json.loads(file.read_text(encoding="utf-8"))["step"] for file in manifests)
    assert computed == {"prepare": 1, "floors": 1, "embed": 1, "train": 8, "rank": 8}
    cells = values(tmp_path / "table.json")
    for head in ("SASRec", "GRU4Rec"):
        for method in ("theirs", "ids"):
            assert 0 <= cells[f"shop, {head}", method]["NDCG@10"]["value"] <= 1
            assert cells[f"shop, {head}", method]["NDCG@10"]["sd"] is not None
            assert cells[f"shop, {head}", method]["params trained"]["value"] > 100
        assert cells[f"shop, {head}", "popularity"]["NDCG@10"]["sd"] is None
    assert cells["shop, SASRec", "ids"]["NDCG@10"] != cells["shop, GRU4Rec", "ids"]["NDCG@10"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_cells_share_is_computed_once_whatever_the_number_of_processes(
    command: Command, toys: Path, jobs: int
) -> None:
    said = command("bench", "suite.toml", "--jobs", jobs)
    assert said.code == 0, said.err
    assert "9 of 9 cells to compute" in said.out
    assert ran(toys) == ONCE_EACH
    again = command("bench", "suite.toml")
    assert "0 of 9 cells to compute" in again.out
    assert ran(toys) == ONCE_EACH


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_interrupted_suite_goes_on_where_it_was(
    command: Command, toys: Path, number: signal.Signals
) -> None:
    order = toys.with_name("fit-b")
    order.write_text("wait", encoding="utf-8")
    process = subprocess.Popen([sys.executable, "-m", "reaemb_bench", "bench", "suite.toml"], stdout=subprocess.DEVNULL)
    while not any("fit b" in line for line in ran(toys)):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, number)
    assert process.wait() == (130 if number == signal.SIGINT else -number)
    for lock in Path(".reaemb-bench/store/locks").glob("*.lock"):
        # Its process must not outlive it: whoever computes holds a lock.
        FileLock(lock, timeout=60).acquire().lock.release()
    order.unlink()
    said = command("bench", "suite.toml")
    assert said.code == 0, said.err
    assert "4 of 9 cells to compute" in said.out
    assert ran(toys) == {**ONCE_EACH, "fit b 0.1": 3}


def test_a_cell_that_fails_is_missing_and_the_others_go_on(command: Command, toys: Path, tmp_path: Path) -> None:
    order = toys.with_name("fit-b")
    order.write_text("fail", encoding="utf-8")
    said = command("bench", "suite.toml", "--out", "table.json")
    assert said.code == 1
    assert missing(tmp_path / "table.json") == [
        "missing: slow, seeds 1, 2; fast, seeds 1, 2: train: RuntimeError: out of toys"
    ]
    cells = values(tmp_path / "table.json")
    assert cells["toys, a", "slow"]["HR@10"]["value"] == 1.0
    assert cells["toys, b", "slow"]["HR@10"]["value"] is None
    assert cells["toys, b", "popularity"]["HR@10"]["value"] is not None
    order.unlink()
    said = command("bench", "suite.toml", "--out", "table.json")
    assert said.code == 0, said.err
    assert missing(tmp_path / "table.json") == []
    assert values(tmp_path / "table.json")["toys, b", "slow"]["HR@10"]["value"] == 1.0


def test_a_step_that_failed_is_not_tried_again_for_each_cell_that_needs_it(command: Command, toys: Path) -> None:
    toys.with_name("embed").write_text("fail", encoding="utf-8")
    said = command("bench", "suite.toml", "--out", "table.json")
    assert said.code == 1
    assert ran(toys) == {"embed": 1}
    line = "missing: slow, seeds 1, 2; fast, seeds 1, 2: embed: RuntimeError: out of toys"
    assert missing(toys.with_name("table.json")) == [line, line]


def test_a_cell_whose_process_dies_is_tried_once_more(command: Command, toys: Path) -> None:
    toys.with_name("fit-a").write_text("die once", encoding="utf-8")
    toys.with_name("fit-b").write_text("die", encoding="utf-8")
    said = command("bench", "suite.toml", "--set", "seeds=[1]", "--out", "table.json")
    assert said.code == 1
    assert missing(toys.with_name("table.json")) == [
        "missing: slow, seed 1; fast, seed 1: its process died 2 times (exit code -9)"
    ]
    assert ran(toys) == {"embed": 1, "fit a 0.1": 2, "fit a 0.5": 1, "fit b 0.1": 2, "fit b 0.5": 2}


def test_a_method_that_keeps_its_head_is_computed_once_and_says_so(command: Command, toys: Path) -> None:
    text = TOY_SUITE.replace('name = "slow"', 'name = "slow", own_head = true')
    toys.with_name("suite.toml").write_text(text, encoding="utf-8")
    said = command("bench", "suite.toml", "--out", "table.json")
    assert said.code == 0, said.err
    assert "not under b but as in their recipes: slow" in said.out
    assert ran(toys) == {"embed": 1, "fit own 0.1": 2, "fit a 0.5": 2, "fit b 0.5": 2}
    cells = values(toys.with_name("table.json"))
    assert cells["toys, a", "slow"] == cells["toys, b", "slow"]


def test_costs_are_those_of_all_steps_between_data_and_judge(command: Command, toys: Path) -> None:
    command("bench", "suite.toml", "--out", "table.json")
    cells = values(toys.with_name("table.json"))["toys, a", "fast"]
    assert cells["params trained"]["value"] == 7
    assert cells["tokens"]["value"] == 1000
    assert 0.2 / 60 < cells["minutes"]["value"] < 10 / 60
    assert 0.01 < cells["GB peak"]["value"] < 10


def test_costs_that_a_step_does_not_note_are_unknown_and_those_of_parts_are_summed(
    command: Command, toys: Path
) -> None:
    text = PARTS.read_text(encoding="utf-8")
    noted = '{"trained_parameters": 7, "tokens": 1000}'
    assert noted in text
    for name, facts in (("silent", "{}"), ("parts", '{"ids: trained_parameters": 7, "texts: trained_parameters": 8}')):
        toys.with_name(f"{name}.py").write_text(text.replace(noted, facts), encoding="utf-8")
        recipe = toys.with_name("toy.toml").read_text(encoding="utf-8").replace(str(PARTS), f"{name}.py")
        toys.with_name(f"{name}.toml").write_text(recipe, encoding="utf-8")
    suite = f'methods = ["silent.toml", "parts.toml"]\ndata.toys = {{ use = "{TOYS}:Prepare" }}\n'
    toys.with_name("suite.toml").write_text(suite, encoding="utf-8")
    said = command("bench", "suite.toml", "--out", "table.json")
    assert said.code == 0, said.err
    by_method = {method: cells for (_, method), cells in values(toys.with_name("table.json")).items()}
    assert by_method["silent"]["params trained"]["value"] is None
    assert by_method["parts"]["params trained"]["value"] == 15
    # Neither reads a language model, so the tokens of both are known.
    assert by_method["silent"]["tokens"]["value"] == 0


def test_a_suite_without_heads_leaves_the_recipes_theirs(command: Command, toys: Path) -> None:
    text = "\n".join(line for line in TOY_SUITE.splitlines() if not line.startswith("heads"))
    toys.with_name("suite.toml").write_text(text, encoding="utf-8")
    said = command("bench", "suite.toml", "--set", "data.toys.users=5")
    assert said.code == 0, said.err
    assert ran(toys) == {"embed": 1, "fit own 0.1": 2, "fit own 0.5": 2}
    assert "5 test users" in said.out


def test_a_head_with_a_budget_of_its_own_is_trained_with_it_under_all_methods(command: Command, toys: Path) -> None:
    text = TOY_SUITE.replace("heads.b =", "train = { rate = 0.2 }\nheads.b =").replace(
        'head = "b"', 'head = "b", rate = 0.9'
    )
    toys.with_name("suite.toml").write_text(text, encoding="utf-8")
    said = command("bench", "suite.toml", "--out", "table.json")
    assert said.code == 0, said.err
    # Both methods now train alike.
    assert ran(toys) == {"embed": 1, "fit a 0.2": 2, "fit b 0.9": 2}
    tables = json.loads(toys.with_name("table.json").read_text(encoding="utf-8"))["tables"]
    notes = {table["title"]: [note for note in table["notes"] if "settings of its own" in note] for table in tables}
    assert notes == {"toys, a": [], "toys, b": ["b is trained with settings of its own: rate = 0.9"]}


def test_a_method_without_a_name_is_called_by_its_recipe_and_what_is_changed(toys: Path) -> None:
    changes = ["set = { train.rate = 0.5 }", "set.embed = { width = 3 }"]
    methods = ", ".join(f'{{ recipe = "toy.toml", {change} }}' for change in changes)
    text = TOY_SUITE.replace(TOY_SUITE.partition("]")[0].partition("[")[2], f'"toy.toml", {methods}')
    toys.with_name("suite.toml").write_text(text, encoding="utf-8")
    names = [cell.name for cell in grid(read_suite(toys.with_name("suite.toml"))).cells]
    assert names[:3] == ["toy", "toy (train.rate=0.5)", "toy (embed.width=3)"]


MISTAKES = {
    "no such recipe": ('methods = ["toys.toml"]', "there is no recipe toys.toml."),
    "two methods of one name": ('methods = ["toy.toml", "toy.toml"]', "two methods are called 'toy'"),
    "misspelt key": ("seed = [1]", "suite.toml, seed: no setting is called 'seed'. Did you mean 'seeds'?"),
    "misspelt key of a method": ('methods = [{ recipe = "toy.toml", nom = "x" }]', "Did you mean 'name'?"),
    "no method": ("methods = []", "methods: "),
    "a seed twice": ("seeds = [1, 1]", "a seed stands twice"),
    "unknown training setting": ("heads.a = { rates = 1 }", "method slow on toys under a: train.rates: no setting"),
    "unknown setting of a recipe": (
        'methods = [{ recipe = "toy.toml", set = { train.rat = 1 } }]',
        "train.rat: no setting is called 'rat'. Did you mean 'rate'?",
    ),
    "settings of a step that no method has": (
        "set.trains.rate = 1",
        "no method has a step of this name. Did you mean 'train'?",
    ),
    "data that lack a source": (
        "data.toys = { use = 'prepare' }",
        "data toys: prepare.source: this setting",
    ),
    "a step that is not there": ('methods = [{ recipe = "toy.toml", drop = ["rnak"] }]', "Did you mean 'rank'?"),
    "nothing to rank": ('methods = [{ recipe = "toy.toml", drop = ["rank"] }]', 'ranks nothing: add a step "rank"'),
    "no data step": ('methods = [{ recipe = "bare.toml" }]', "no step is called prepare"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_in_the_suite_is_one_line_and_nothing_runs(command: Command, toys: Path, mistake: str) -> None:
    line, part = MISTAKES[mistake]
    key = line.partition("=")[0].strip()
    others = "\n".join(each for each in suite_without(key))
    toys.with_name("suite.toml").write_text(f"{line}\n{others}\n", encoding="utf-8")
    toys.with_name("bare.toml").write_text(f'steps = ["embed"]\nembed.use = "{TOYS}:Embed"\n', encoding="utf-8")
    said = command("bench", "suite.toml")
    assert said.code == 2
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert part in said.err
    assert not toys.exists()


def suite_without(key: str) -> list[str]:
    """The lines of the toy suite, but for what `key` sets."""
    methods, _, rest = TOY_SUITE.partition("seeds")
    lines = [*(methods.splitlines() if key != "methods" else []), *f"seeds{rest}".splitlines()]
    return [line for line in lines if line.partition("=")[0].strip() != key]


def test_an_ending_without_a_format_is_refused_before_anything_runs(command: Command, toys: Path) -> None:
    said = command("bench", "suite.toml", "--out", "table.xls")
    assert said.code == 2
    assert "give one of .md, .tex, .json, .csv, .html, .svg" in said.err
    assert not toys.exists()


@pytest.mark.parametrize(
    ("name", "heads"), [("quick", 1), ("small_texts", 1), ("recommenders", 3), ("beauty", 5), ("reaemb_table", 3)]
)
def test_shipped_suites_plan(name: str, heads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suite = read_suite(f"suites/{name}")
    cells = grid(suite)
    assert len(cells.cells) == len(suite.methods) * len(suite.data) * len(suite.heads)
    assert len(suite.heads) == heads and len(suite.seeds) == 3
    assert any(cell.proposed for cell in cells.cells)
    assert all(cell.takes_head for cell in cells.cells), "a method has no place in the other recommenders' tables"
    # A tuned language model takes part in the seeds, one that is not tuned does not.
    vectors = {
        cell.name: {
            job.key for planned in cell.variant.plans for job in planned.jobs if job.name in ("encode", "embed")
        }
        for cell in cells.cells
    }
    for method, tuned in (("frozen_llm_mean", False), ("llm2x", False), ("llmemb", True), ("reaemb", True)):
        if method in vectors and name != "reaemb_table":
            assert len(vectors[method]) == (3 if tuned else 1)


def test_plan_says_what_a_suite_would_compute(command: Command, toys: Path) -> None:
    said = command("plan", "suite.toml")
    assert said.code == 0, said.err
    before = said.out
    assert command("bench", "suite.toml").code == 0
    after = command("plan", "suite.toml").out
    assert "cells would be computed" in before and ": 0 of " not in before.splitlines()[0]
    assert ": 0 of " in after.splitlines()[0] and "steps to run, each result once: none" in after
    said = command("plan", "suite.toml", "--drop", "train")
    assert said.code == 2 and "a suite's methods and variants have `drop`" in said.err


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_on_ray_a_suite_gives_the_same_and_a_dying_process_is_survived(command: Command, toys: Path) -> None:
    toys.with_name("fit-a").write_text("die once", encoding="utf-8")
    said = command("bench", "suite.toml", "--executor", "ray", "--jobs", 2)
    assert said.code == 0, said.err
    assert ran(toys).total() == 10
    assert "missing" not in said.out
