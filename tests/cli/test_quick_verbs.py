"""Verbs that compute nothing load none of the libraries that take seconds to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.main import get_command

from reaemb_bench.cli.app import app
from tests.conftest import Said
from tests.helpers.stored_runs import run_all

Command = Callable[..., Said]

SCRIPT = """
import contextlib, io, json, sys
from reaemb_bench.cli.app import main

for words in json.loads(sys.argv[1]):
    sys.argv = ["reaemb-bench", *words]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as left:
            assert left.code == 0, (words, left.code)
    slow = {"torch", "transformers", "peft", "mlflow", "optuna", "sklearn"} & set(sys.modules)
    assert not slow, (words, slow)
"""


def run_in_a_new_process(commands: Sequence[Sequence[str]], folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def verbs() -> list[list[str]]:
    """The words of every verb, such as `store ls`."""
    words = []
    for name, verb in get_command(app).commands.items():  # type: ignore[attr-defined]
        words += [[name, inner] for inner in verb.commands] if hasattr(verb, "commands") else [[name]]
    return words


@pytest.mark.slow
def test_help_of_every_verb_is_quick_and_has_an_example(command: Command, tmp_path: Path) -> None:
    run_in_a_new_process([["--help"], *([*words, "--help"] for words in verbs())], tmp_path)
    for words in verbs():
        examples = command(*words, "--help").out.partition("Examples:")[2]
        assert f"reaemb-bench {' '.join(words)}" in examples, words


def test_looking_around_is_quick(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user,item\nu,i\n", encoding="utf-8")
    run_in_a_new_process([["data", "check", "rows.csv"]], tmp_path)
    commands = [
        *([], ["--version"], ["list"], ["list", "loss"], ["describe"], ["describe", "train"], ["describe", "lrcl"]),
        *(["plan"], ["plan", "quickstart"], ["plan", "reference/beauty_sasrec_ce"], ["doctor", "--mlflow", ""]),
        *(["init", "mine.toml"], ["new", "loss", "my_loss"]),
    ]
    run_in_a_new_process(commands, tmp_path)


@pytest.mark.slow
def test_looking_at_runs_is_quick(command: Command, tmp_path: Path) -> None:
    store = run_all(command, tmp_path)
    key = next(folder.name for folder in (store.root / "results").iterdir())
    commands = [
        *(["history"], ["history", "--json"], ["compare", "good", "poor"], ["diff", "good", "poor"]),
        *(["watch"], ["report", "good"], ["store", "ls"], ["store", "why", key], ["store", "gc"]),
    ]
    run_in_a_new_process(commands, tmp_path)


def completed(typed: str, folder: Path) -> list[str]:
    """What the shell offers; checks that nothing slow was loaded for it."""
    script = (
        "import atexit, sys\nfrom reaemb_bench.cli.app import main\n"
        "atexit.register(lambda: print({'torch', 'mlflow', 'optuna'} & set(sys.modules), file=sys.stderr))\nmain()"
    )
    words = f"reaemb-bench {typed}"
    asked = {"_REAEMB_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    ended = subprocess.run(
        [sys.executable, "-c", script, "reaemb-bench"],
        env={**os.environ, **asked},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr == "set()\n"
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("run to", "toys.toml"),
        ("run quick", "quickstart"),
        ("list rewa", "reward"),
        ("describe soft-t", "soft-target"),
        ("run quickstart --set lrcl.lo", "lrcl.loss.use="),
        ("run quickstart --drop crr", "crrl"),
    ],
)
def test_completion_is_quick_and_knows_names(typed: str, wanted: str, toy_recipe: Path) -> None:
    assert wanted in completed(typed, toy_recipe.parent)


def test_completion_knows_remembered_runs(command: Command, tmp_path: Path) -> None:
    run_all(command, tmp_path)
    assert completed("report le", tmp_path) == ["leaky"]
    assert completed("compare good po", tmp_path) == ["poor"]


TWO_VERBS = """
import sys
from reaemb_bench.cli.app import main

for words in (["plan", "quickstart"], ["run", "tiny.toml"], ["list"], ["run", "tiny.toml", "--set", "seeds=[2]"]):
    sys.argv = ["reaemb-bench", *words]
    try:
        main()
    except SystemExit as left:
        assert left.code == 0, (words, left.code)
"""
TINY = """
steps = ["prepare", "train", "rank"]
prepare.source = { use = "simulated", users = 30, items = 20 }
train = { use = "train-ids", epochs = 1, head = { use = "sasrec", hidden = 8, max_length = 8, blocks = 1 } }
"""


@pytest.mark.slow
def test_a_verb_that_computes_has_its_networks_after_one_that_only_looked(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    words, environment = [sys.executable, "-c", TWO_VERBS], {**os.environ, "REAEMB_BENCH_MLFLOW": ""}
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "steps would run" in ended.stdout
    assert ended.stdout.count("computed 3 steps") + ended.stdout.count("computed 2 steps") == 2
