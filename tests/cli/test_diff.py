"""What differs between two runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reaemb_bench.core.runs import find
from reaemb_bench.core.store import Store
from tests.conftest import Said
from tests.helpers.stored_runs import refused, run_all

Command = Callable[..., Said]


@pytest.fixture
def store(command: Command, tmp_path: Path) -> Store:
    return run_all(command, tmp_path)


def _part(text: str, title: str) -> list[list[str]]:
    """The words of each line below a heading."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(title)) + 1
    end = next((place for place in range(start, len(lines)) if not lines[place].strip()), len(lines))
    return [line.split() for line in lines[start:end]]


def test_settings_results_and_metrics_that_differ_are_shown(store: Store, command: Command) -> None:
    said = command("diff", "leaky", "poor")
    assert said.code == 0, said.err
    assert said.out.startswith(f"A  {find(store, 'leaky').id} leaky, toys, 20")
    assert ", leaks: peek" in said.out.splitlines()[0]
    assert _part(said.out, "Settings")[1:] == [
        ["steps", "peek", "—"],
        ["allow_leaks", "True", "—"],
        ["rank.mean", "4.0", "120.0"],
    ]
    results = {words[0]: words[3:] for words in _part(said.out, "Results")[1:]}
    assert results == {
        "prepare": ["the", "same"],
        "peek": ["only", "in", "A"],
        "rank": ["mean:", "4.0", "→", "120.0"],
        "floors": ["the", "same"],
    }
    metrics = {words[0]: words[1:] for words in _part(said.out, "Metrics") if len(words) == 4}
    one, other, gap = metrics["MRR"]
    assert float(gap) == pytest.approx(float(other) - float(one), abs=1.1e-4)
    assert float(gap) < 0
    assert "leaky beats poor on NDCG@10" in " ".join(said.out.split())


def test_seeds_that_nobody_wrote_down_count_too(store: Store, command: Command) -> None:
    said = command("diff", "good", "poor")
    assert ["seeds", "[1,", "2]", "[42]"] in _part(said.out, "Settings")
    assert "Results of the first seeds" in said.out
    assert any(words[0] == "rank" and "seed:" in words for words in _part(said.out, "Results"))


def test_other_code_and_other_versions_are_told(
    store: Store, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = next(result.key for result in find(store, "poor").results[0] if result.step == "rank")
    manifest = store.manifest(key)
    (plugin,) = manifest["identity"]["step"]["code"]
    manifest["identity"]["step"] |= {"code": {plugin: "0" * 64}, "mean": 4.0}
    manifest["versions"]["numpy"] = "1.0"
    read = Store.manifest
    monkeypatch.setattr(Store, "manifest", lambda self, wanted: manifest if wanted == key else read(self, wanted))
    said = command("diff", "leaky", "poor")
    assert said.code == 0, said.err
    shown = said.out
    (rank,) = [words for words in _part(shown, "Results") if words[0] == "rank"]
    assert " ".join(rank[3:]) == f"{plugin} was edited"
    assert "→ 1.0 (rank)" in next(line for line in shown.splitlines() if line.startswith("numpy: "))


def test_another_machine_and_precision_are_told(store: Store, command: Command) -> None:
    said = command("run", "poor.toml", "--set", "rank.mean=30", "--precision", "bfloat16", "--deterministic")
    assert said.code == 0, said.err
    lines = command("diff", "poor", "poor (rank.mean=30)").out.splitlines()
    assert "precision: float32 → bfloat16 (rank)" in lines
    assert "deterministic: False → True (rank)" in lines


def test_runs_without_common_targets_are_told_apart_all_the_same(store: Store, command: Command) -> None:
    assert command("run", "good.toml", "--set", "prepare.users=150").code == 0
    other = find(store, "good (prepare.users=150)").id
    said = command("diff", "poor", other)
    assert said.code == 0, said.err
    assert ["prepare.users", "200", "150"] in _part(said.out, "Settings")
    assert "not compared: poor and good (prepare.users=150) have different users or targets" in said.out


def test_of_a_recipe_that_no_run_remembers_no_time_is_made_up(store: Store, command: Command, tmp_path: Path) -> None:
    (tmp_path / "again.toml").write_text("extends = 'poor.toml'\n", encoding="utf-8")
    said = command("diff", "leaky", "again.toml")
    assert said.out.splitlines()[1].endswith(" again, toys")
    assert "leaky beats again" in " ".join(said.out.split())


def test_mistakes_are_one_line(store: Store, command: Command) -> None:
    identifier = find(store, "good").id
    refused(command("diff", "good", identifier[:5]), f"'good' and '{identifier[:5]}' are the same run, {identifier}")
    refused(command("diff", "good", "pour"), "remembers no run 'pour'. Did you mean 'poor'?")
    refused(command("diff", "good"), "Missing argument 'B'")
