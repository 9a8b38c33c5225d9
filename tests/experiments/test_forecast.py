"""What is said before anything runs: what does not fit, what is missing, and what the rest will take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.core.artifacts import Corpus
from reaemb_bench.core.machine import Machine, circumstances
from reaemb_bench.core.plan import Job, Plan, plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.store import MANIFEST, PROGRESS_FILE, Store
from reaemb_bench.encoder import sentence_encoder
from reaemb_bench.experiments import memory
from reaemb_bench.experiments.forecast import Forecast, totals, why_not
from tests.conftest import Said

Command = Callable[..., Said]

MISFITS = {
    "a pooling of thoughts without a thought": (
        ["--drop", "llm.reasoner"],
        "llm.pooling: 'text-and-thought' pools thoughts",
    ),
    "a stage that trains the thought that is not there": (
        ["--drop", "llm.reasoner", "--set", "llm.pooling=mean"],
        "crrl: trains the latent thought, and the encoder has none",
    ),
    "contrastive training of the thought alone": (
        ["--drop", "llm.reasoner", "--drop", "crrl", "--set", "llm.pooling=mean", "--set", "lrcl.trained=thought"],
        'lrcl.trained: "thought" trains the latent thought',
    ),
    "thoughts of a model that reads both ways": (
        ["--set", "llm.backbone={use='bidirectional', of='tiny'}"],
        "llm.reasoner: a bidirectional backbone has no place for thoughts",
    ),
    "more dimensions than the vectors have": (
        ["--set", "reduce.reducer.dimensions=65"],
        "reduce.reducer.dimensions: 65, but item vectors have width 64",
    ),
    "vectors of another width than the head": (
        ["--set", "train.items.adapter=none"],
        "train.items: without an adapter vectors must have the head's width 48, not 64",
    ),
    "vectors of another width as a start": (
        ["--set", "train.items=initialised"],
        "train.items: without an adapter vectors must have the head's width 48, not 64",
    ),
    "a table of vectors without vectors": (
        ["--set", "train={use='train-ids', items='frozen'}"],
        "train.items: the item table reads vectors, and this step is given none",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_parts_that_do_not_fit_are_refused_by_planning(command: Command, case: str) -> None:
    words, message = MISFITS[case]
    planned, run = command("plan", "quickstart", *words), command("run", "quickstart", *words)
    assert planned.code == run.code == 2
    assert planned.err == run.err
    assert message in run.err and run.err.count("\n") == 1
    assert not Path(".reaemb-bench").exists(), "something was computed"


FITTING = [
    ["--set", "reduce.reducer.dimensions=48", "--set", "train.items.adapter=none"],
    ["--drop", "reduce", "--set", "train.items=initialised", "--set", "train.head.hidden=64"],
    ["--drop", "llm.reasoner", "--drop", "crrl", "--set", "llm.pooling=mean"],
]


@pytest.mark.parametrize("words", FITTING)
def test_parts_that_fit_are_planned(command: Command, words: list[str]) -> None:
    said = command("plan", "quickstart", *words)
    assert said.code == 0, said.err


TABLE = """
steps = ["prepare", "train", "rank"]
prepare.source = { use = "table", interactions = "rows.csv", items = "items.csv" }
train = { use = "train-ids", epochs = 1, head = { use = "sasrec", hidden = 8, max_length = 8, blocks = 1 } }
"""
SUITE = """
methods = ["table.toml"]
seeds = [1, 2]
[data]
mine = "table.toml"
shop = { source = { use = "simulated", users = 30, items = 20 } }
"""
SPACE = """
[space]
"train.learning_rate" = { choices = [1e-3] }
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for name, text in (("table.toml", TABLE), ("suite.toml", SUITE), ("table.search.toml", SPACE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["run", "table.toml"],
        ["ablate", "table.toml", "--swap", "train.batch_size=2"],
        ["sweep", "table.toml", "--trials", 1],
        ["audit", "table.toml"],
    ],
    ids=lambda words: words[0],
)
def test_a_missing_file_is_named_before_anything_runs(command: Command, table: Path, words: list[object]) -> None:
    said = command(*words)
    assert said.code == 2
    assert "prepare.source.interactions: there is no" in said.err and "rows.csv" in said.err
    assert not list(Path().glob(".reaemb-bench/store/results/*"))
    assert "cannot run: prepare.source.interactions: there is no" in command("plan", "table.toml").out


@pytest.mark.slow
def test_bench_names_every_cell_that_cannot_run_and_starts_none(command: Command, table: Path) -> None:
    said = command("bench", "suite.toml")
    assert said.code == 2 and "3 of 6 cells cannot run, so nothing was started" in said.err
    line = next(line for line in said.out.splitlines() if line.startswith("cannot run"))
    assert "mine, floors; mine, table (1, 2): prepare.source.interactions: there is no" in line
    assert not list(Path().glob(".reaemb-bench/store/results/*"))
    assert line.partition(": ")[2] in command("plan", "suite.toml").out
    said = command("bench", "suite.toml", "--partial", "--out", "table.md")
    assert said.code == 1 and "3 of 6 cells to compute" in said.out
    written = Path("table.md").read_text(encoding="utf-8")
    assert "missing: table, seeds 1, 2; floors, seed 1: prepare.source.interactions: there is no" in written
    # What is in the store needs no file.
    assert "2 of 2" in command("plan", "suite.toml").out


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sentence_encoder, "find_spec", lambda name: None)
    recipe = load("embedders/sentence_encoder", ["embed.model=./nowhere"])
    reasons = why_not(plan(recipe, 1), Store(tmp_path), Machine(device="cpu"))
    assert "pip install 'reaemb-bench[sentence-transformers]'" in reasons["embed"]
    monkeypatch.undo()
    reasons = why_not(plan(recipe, 1), Store(tmp_path), Machine(device="cpu"))
    assert "nowhere is not a folder" in reasons["embed"]


def test_a_gpu_that_is_too_small_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planned, machine = plan(load("quickstart"), 1), Machine(device="cuda", precision="float32")
    monkeypatch.setattr(Machine, "device_name", lambda self: "cuda:0")
    for free, short in ((10**6, ["lrcl", "crrl", "encode"]), (10**10, [])):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        monkeypatch.setattr("reaemb_bench.encoder.memory.free_memory", lambda device, free=free: free)
        reasons = why_not(planned, Store(tmp_path), machine)
        assert list(reasons) == short
        assert all("cuda:0 has 1.0 MB free" in reason for reason in reasons.values())


MACHINE = Machine(device="cpu")


def remembered(store: Store, planned: Plan, seconds: float, **other: Any) -> None:
    """Puts the manifests of a plan's results into a store, each of which took so many seconds."""
    device = str(circumstances(MACHINE)["device"]).removesuffix(" (cpu)")
    for job in planned.jobs:
        folder = store.folder(job.key)
        folder.mkdir(parents=True, exist_ok=True)
        name = "corpus/corpus.json" if Corpus in job.makes else "vectors/0.npy"
        manifest = {
            "step": job.name,
            "identity": job.identity,
            "seconds": seconds,
            "peak_memory_bytes": 2_000_000_000,
            "facts": {"items": 100, "interactions": 1_000},
            "machine": {"device": f"{device} (cpu)"},
            "files": {name: {"bytes": 10_000_000}},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest | other), encoding="utf-8")
        (folder / PROGRESS_FILE).write_text('{"done": 40}\n' if job.name == "train" else "", encoding="utf-8")


def job_of(planned: Plan, name: str) -> Job:
    return next(job for job in planned.jobs if job.name == name)


def test_a_step_takes_what_a_similar_one_took_by_its_steps_and_batch(tmp_path: Path) -> None:
    store = Store(tmp_path)
    remembered(store, plan(load("quickstart"), 1), 10)

    def cost(name: str, *sets: str) -> Any:
        planned = plan(load("quickstart", sets), 2)
        return Forecast(store, MACHINE).cost(planned, job_of(planned, name))

    assert str(cost("lrcl")) == "~10 s"
    assert str(cost("lrcl", "lrcl.steps=60")) == "~20 s"
    assert str(cost("lrcl", "lrcl.steps=60", "lrcl.batch_size=64")) == "~40 s"
    # It stopped after 40 of 60 epochs, and more epochs would not change that.
    assert str(cost("train", "train.epochs=600")) == "~10 s"
    assert str(cost("train", "train.epochs=20")) == "~5.0 s"
    # Another recommender, and other data that are not prepared: a guess, and not even that.
    assert str(cost("train", "train.head=gru4rec")) == "~10 s?"
    assert cost("train", "prepare.source.users=70") is None
    # Another language model.
    assert cost("lrcl", "llm.backbone.hidden=128") is None
    assert str(cost("train", "llm.backbone.hidden=128")) == "~10 s"
    assert str(cost("lrcl", "llm.backbone.layers=4")) == "~20 s"


def test_a_result_of_another_machine_is_a_guess_and_one_of_this_machine_is_preferred(tmp_path: Path) -> None:
    store, planned = Store(tmp_path), plan(load("quickstart", ["lrcl.learning_rate=0.1"]), 1)
    remembered(store, plan(load("quickstart"), 1), 10, machine={"device": "NVIDIA H100"})
    wanted = plan(load("quickstart", ["lrcl.steps=31"]), 1)
    assert str(Forecast(store, MACHINE).cost(wanted, job_of(wanted, "lrcl"))) == "~10 s?"
    remembered(store, planned, 30)
    assert str(Forecast(store, MACHINE).cost(wanted, job_of(wanted, "lrcl"))) == "~31 s"


def test_totals_say_what_is_not_known(tmp_path: Path) -> None:
    store, planned = Store(tmp_path), plan(load("quickstart"), 1)
    assert totals({"a": ("lrcl", None)}, store, MACHINE).endswith("the store holds nothing similar; try --limit")
    remembered(store, planned, 10)
    cost = Forecast(store, MACHINE).cost(planned, job_of(planned, "train"))
    line = totals({"a": ("train", cost), "b": ("rank", cost), "c": ("lrcl", None)}, store, MACHINE)
    assert line.startswith(
        "time: ~20 s, without lrcl, of which the store holds nothing similar; memory: 2.00 GB at most"
    )
    assert "disk: 0.02 GB of " in line


def test_damaged_manifests_explain_less_and_nothing_more(command: Command, tmp_path: Path) -> None:
    store = Store(tmp_path / ".reaemb-bench" / "store")
    remembered(store, plan(load("quickstart"), 1), 10)
    for number, text in enumerate(("", "[]", "{}", '{"identity": {"step": 3}}', '{"identity": {"step": {"use": []}}}')):
        store.folder(f"broken{number}").mkdir()
        (store.folder(f"broken{number}") / MANIFEST).write_text(text, encoding="utf-8")
    said = command("plan", "quickstart", "--set", "prepare.sampled_candidates=7", "--set", "seeds=[7]")
    assert said.code == 0, said.err
    assert "time: ~" in said.out


TINY = """
title = "Tiny"
steps = ["prepare", "train", "rank", "floors"]
seeds = [1, 2]
prepare.source = { use = "simulated", users = 200, items = 150 }
train = { use = "train-ids", epochs = 9, head = { use = "sasrec", hidden = 8, max_length = 8, blocks = 1 } }
"""


@pytest.mark.slow
def test_a_smoke_run_shares_nothing_with_the_run_and_its_tables_say_what_it_is(command: Command) -> None:
    Path("tiny.toml").write_text(TINY, encoding="utf-8")
    Path("suite.toml").write_text('methods = ["tiny.toml"]\ndata.shop = "tiny.toml"', encoding="utf-8")
    assert "Tiny (smoke run), seed 1: 4 of 4 steps would run" in command("plan", "tiny.toml", "--limit").out
    said = command("run", "tiny.toml", "--limit")
    assert said.code == 0, said.err
    assert "computed 4 steps" in said.out and "tiny (smoke run)" in said.out and "100 test users" in said.out
    store = Store(Path(".reaemb-bench/store"))
    facts = {manifest["step"]: manifest["facts"] for manifest in map(store.manifest, store.stored_keys())}
    assert facts["prepare"]["users"] == 100 and facts["prepare"]["items"] <= 100 and facts["train"]["best_epoch"] <= 2
    assert "4 of 4 steps would run" in command("plan", "tiny.toml").out, "a smoke run gave the run its results"
    # Its data differ, so no table holds both.
    assert command("run", "tiny.toml").code == 0
    said = command("compare", "tiny", "tiny (smoke run)")
    assert said.code == 2 and "differ" in said.err
    for words in (["ablate", "tiny.toml", "--swap", "train.batch_size=7"], ["bench", "suite.toml"]):
        said = command(*words, "--limit")
        assert said.code == 0, said.err
        assert "tiny (smoke run)" in said.out
    assert "0 of 2 cells would be computed" in command("plan", "suite.toml", "--limit").out
