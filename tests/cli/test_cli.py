"""The command line, in this process, with toy steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reaemb_bench.core.runs import history
from reaemb_bench.core.store import Store
from tests.conftest import TOYS, Said

Command = Callable[..., Said]


def test_the_second_run_finds_everything_cached(command: Command, toy_recipe: Path) -> None:
    first = command("run", toy_recipe)
    assert first.code == 0, first.err
    assert "4 of 4 steps to compute" in first.out
    assert "computed 4 steps, 0 cached, in" in first.out
    second = command("run", toy_recipe)
    assert "everything was cached: 4 steps" in second.out
    third = command("run", toy_recipe, "--set", "train.rate=0.2")
    assert "computed 2 steps, 2 cached, in" in third.out


def test_a_run_ends_with_its_id_its_place_and_the_next_command(command: Command, toy_recipe: Path) -> None:
    last = command("run", toy_recipe, "--name", "wide toys", "--set", "embed.width=3").out.splitlines()[-1]
    (run,) = history(Store(Path(".reaemb-bench/store")))
    assert last == f"run {run.id} (wide toys) is in .reaemb-bench/store; next: reaemb-bench report {run.id}"
    assert (run.name, run.title) == ("wide toys", "wide toys")
    assert "store ls" in command("run", toy_recipe, "--drop", "rank").out.splitlines()[-1]
    assert "--name: ' ' is not a name" in command("run", toy_recipe, "--name", " ").err


def test_seeds_share_what_does_not_depend_on_them(command: Command, toy_recipe: Path) -> None:
    said = command("run", toy_recipe, "--set", "seeds=[1, 2]", "--set", "embedder_seed=0")
    assert said.code == 0, said.err
    assert "computed 6 steps, 0 cached, in" in said.out
    assert "mean ± standard deviation over 2 seeds" in said.out


def test_a_table_of_lost_data_still_stands(command: Command, toy_recipe: Path) -> None:
    command("run", toy_recipe)
    for manifest in Path(".reaemb-bench/store/results").glob("*/manifest.json"):
        if '"step": "prepare"' in manifest.read_text(encoding="utf-8"):
            manifest.unlink()
    said = command("run", toy_recipe)
    assert said.code == 0, said.err
    assert "everything was cached" in said.out


def test_plan_says_what_runs_and_why(command: Command, toy_recipe: Path) -> None:
    fresh = command("plan", toy_recipe).out
    assert "4 of 4 steps would run" in fresh
    assert f"runs code of {TOYS}" in fresh
    assert "seeds: 42; data seed: 0; embedder seed: the run's" in fresh
    command("run", toy_recipe, "--drop", "rank")
    edited = command("plan", toy_recipe, "--set", "train.rate=0.2").out
    lines = {line.split()[0]: line for line in edited.splitlines() if line.split()}
    assert "cached" in lines["embed"]
    assert "rate: 0.1 → 0.2" in lines["train"]
    assert "new; waits for train" in lines["rank"]


def test_plan_says_that_an_input_changes(command: Command, toy_recipe: Path) -> None:
    command("run", toy_recipe)
    edited = command("plan", toy_recipe, "--set", "embed.width=3").out
    assert "width: 2 → 3" in edited
    assert "its input from embed changes" in edited


def test_plan_marks_leaks(command: Command, toy_recipe: Path) -> None:
    text = f"extends = 'toys.toml'\nallow_leaks = true\n[embed]\nuse = '{TOYS}:Leaky'\n"
    (toy_recipe.parent / "leaky.toml").write_text(text, encoding="utf-8")
    assert "looks at held-out data" in command("plan", "leaky.toml").out


def test_data_prepare_counts(command: Command, toy_recipe: Path) -> None:
    said = command("data", "prepare", toy_recipe)
    assert said.code == 0, said.err
    rows = {line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in said.out.splitlines() if line.strip()}
    assert rows["users"] == "6"
    assert rows["items"] == "12"
    assert rows["training interactions"] == "18"
    assert rows["test users"] == "6"
    assert "cached" in command("run", toy_recipe).out


def test_list_and_describe(command: Command) -> None:
    listed = command("list", "reducer").out
    assert "pca" in listed
    assert "whitening" in listed
    described = command("describe", f"{TOYS}:Fit").out
    assert "takes Corpus, ValidationTargets, Vectors; gives Ranker" in described
    assert "rate" in described
    assert "How fast it learns." in described
    none = command("describe", "none").out
    assert "none (reasoner)" in none
    assert "none (reducer)" in none
    assert "none (reasoner)" not in command("describe", "none", "--kind", "reducer").out


def test_version(command: Command) -> None:
    assert command("--version").out.startswith("reaemb-bench ")


def test_describe_without_a_name_lists_kinds_and_knows_the_steps_of_the_default_recipe(command: Command) -> None:
    listed = command("describe").out
    assert "loss" in listed
    assert "soft-target" in listed
    described = command("describe", "lrcl").out
    assert "lrcl is a step of recipes/reaemb_full.toml; its component is contrast" in described
    assert "temperature" in described or "loss" in described
    assert "Did you mean 'lrcl'?" in command("describe", "lrcll").err


def test_doctor_computes_only_when_asked(command: Command) -> None:
    assert "--compute tries it out" in command("doctor").out
    assert "a 256 x 256 product in" in command("doctor", "--compute", "--device", "cpu").out


def test_doctor_names_what_is_broken(command: Command, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("this is no database", encoding="utf-8")
    said = command("doctor", "--mlflow", "sqlite:///broken.db")
    assert said.code == 1
    assert "broken  mlflow" in said.out
    assert "ok      python" in said.out


def test_an_interrupt_keeps_what_is_finished(command: Command, toy_recipe: Path) -> None:
    said = command("run", toy_recipe, "--set", "train.stop=interrupt")
    assert said.code == 130
    assert said.err.splitlines() == ["interrupted: finished steps are kept, the same command goes on from there"]
    assert "computed 2 steps, 2 cached, in" in command("run", toy_recipe).out


def test_settings_of_the_machine_come_from_the_environment(
    command: Command, toy_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REAEMB_BENCH_STORE", "elsewhere")
    assert command("run", toy_recipe, "--drop", "rank").code == 0
    assert Path("elsewhere/results").is_dir()
    assert not Path(".reaemb-bench").exists()
