"""Typical mistakes: each is one line that names the place and the cure, with exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TOYS, Said

Command = Callable[..., Said]

IN_THE_RECIPE = {
    "unknown step": (
        "steps = ['trian']",
        r"trian: no step is called 'trian'. Did you mean 'train'?",
    ),
    "unknown component": (
        "steps = ['reduce']\n[reduce]\nreducer = 'pcaa'",
        "reduce.reducer: no reducer is called 'pcaa'. Did you mean 'pca'?",
    ),
    "misspelt setting": (
        "[train]\nrat = 0.2",
        "train.rat: no setting is called 'rat'. Did you mean 'rate'?",
    ),
    "wrong type": (
        "[embed]\nwidth = 'wide'",
        "embed.width: give a whole number, not 'wide'",
    ),
    "missing required": (
        "steps = ['prepare']\n[prepare]\nuse = 'prepare'",
        "prepare.source: this setting is required; give it a value",
    ),
    "stray table": (
        "[trian]\nrate = 0.2",
        "trian: this table belongs to no step. Did you mean 'train'?",
    ),
    "bad TOML": (
        "[train\nrate = 0.2",
        "child.toml is not readable TOML:",
    ),
    "plug-in file without the class": (
        f"[embed]\nuse = '{TOYS}:Embedd'",
        "embed: the file",
    ),
    "plug-in file missing": (
        "[embed]\nuse = 'absent.py:Embed'",
        "absent.py",
    ),
    "test targets for a step that is not a judge": (
        f"[embed]\nuse = '{TOYS}:Peek'",
        "embed: ",
    ),
    "a step without its input": (
        f"steps = ['prepare', 'train']\n[prepare]\nuse = '{TOYS}:Prepare'\n[train]\nuse = '{TOYS}:Fit'",
        "train: needs Vectors, which no earlier step makes",
    ),
    "misspelt header": (
        "seed = 3",
        "seed: no setting is called 'seed'. Did you mean 'seeds'?",
    ),
}

ON_THE_COMMAND_LINE = {
    "bad --set": (["--set", "train.rate"], "--set takes step.setting=value, not 'train.rate'"),
    "--set of an unknown step": (["--set", "trian.rate=1"], "no step is called 'trian'. Did you mean 'train'?"),
    "--set of an unknown setting": (["--set", "train.rat=1"], "train.rat: no setting is called 'rat'."),
    "bad --drop": (["--drop", "rnak"], "no step is called 'rnak'. Did you mean 'rank'?"),
    "unknown option": (["--stor", "x"], "No such option: --stor"),
}


def _one_line(said: Said, *parts: str) -> None:
    assert said.code == 2, said.err
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize("mistake", list(IN_THE_RECIPE))
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_mistake_in_the_recipe(command: Command, toy_recipe: Path, verb: str, mistake: str) -> None:
    text, part = IN_THE_RECIPE[mistake]
    # A recipe with steps of its own stands alone: it would inherit tables of steps that it leaves out.
    child = text if text.startswith("steps") else f"extends = 'toys.toml'\n{text}\n"
    (toy_recipe.parent / "child.toml").write_text(child, encoding="utf-8")
    _one_line(command(verb, "child.toml"), part)


@pytest.mark.parametrize("mistake", list(ON_THE_COMMAND_LINE))
def test_a_mistake_on_the_command_line(command: Command, toy_recipe: Path, mistake: str) -> None:
    words, part = ON_THE_COMMAND_LINE[mistake]
    _one_line(command("run", toy_recipe, *words), part)


def test_a_circle_of_recipes(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("extends = 'b.toml'\n", encoding="utf-8")
    (tmp_path / "b.toml").write_text("extends = 'a.toml'\n", encoding="utf-8")
    _one_line(command("run", "a.toml"), "a.toml: extends leads back to itself; break the circle")


def test_no_such_recipe(command: Command) -> None:
    _one_line(command("run", "quickstrt.toml"), "there is no recipe quickstrt.toml.", "Shipped: ")


def test_machine_settings(command: Command, toy_recipe: Path) -> None:
    _one_line(command("run", toy_recipe, "--precision", "float8"), "--precision: ", "'bfloat16'")
    _one_line(command("run", toy_recipe, "--micro-batch", "0"), "--micro-batch: ", "at least 1")


def test_names_of_components(command: Command) -> None:
    _one_line(command("list", "reducr"), "no kind of component is called 'reducr'. Did you mean 'reducer'?")
    _one_line(command("describe", "pcaa"), "no component is called 'pcaa'. Did you mean 'pca'?")


def test_debug_shows_where_an_error_comes_from(command: Command, toy_recipe: Path) -> None:
    said = command("run", toy_recipe, "--set", "train.rat=1", "--debug")
    assert said.code == 2
    assert "Traceback" in said.err
    assert said.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "a", "b", "--k", 10**22], "give a number of at most 1000000"),
        (["run", "toys.toml", "--micro-batch", 10**22], "--micro-batch: give a number of at most 1,000,000"),
        (["run", "toys.toml", "--threads", "many"], "give a whole number"),
        (["run", "toys.toml", "--set", f"train.rate={10**22}"], "train.rate: give a smaller number"),
        (["plan", "toys.toml", "--set", f"seeds=[{10**22}]"], "seeds: give a smaller number"),
        (["plan", "toys.toml", "--set", "embed.width=0.5"], "embed.width: give a whole number, not 0.5"),
        (["plan", "toys.toml", "--set", "seeds=3"], "seeds: give a list in brackets, not 3"),
    ],
)
def test_absurd_values_are_refused_in_plain_english(
    command: Command, toy_recipe: Path, words: list[object], says: str
) -> None:
    _one_line(command(*words), says)


@pytest.mark.parametrize(
    "error", [MemoryError("64 GiB"), OverflowError("too large"), RuntimeError("can't allocate memory")]
)
def test_too_little_memory_and_too_large_numbers_are_one_line(
    command: Command, toy_recipe: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("reaemb_bench.core.plan.plan", fail)
    _one_line(command("run", toy_recipe), str(error))
