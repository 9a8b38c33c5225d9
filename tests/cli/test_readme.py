"""What README and docs promise: commands that exist, files that are there, an example that runs."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from reaemb_bench.cli.app import app
from tests.conftest import Said

Command = Callable[..., Said]

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{name}.md" for name in ("concepts", "components", "embedders", "python", "reproducing", "trusting")),
)

SUITE = """
title = "Letters"
methods = ["baselines/random_table/recipe.toml", { recipe = "letters.toml", proposed = true }]
data.shop = { source = { use = "simulated", users = 60, items = 40 }, sampled_candidates = 10 }
heads.SASRec.head = { use = "sasrec", hidden = 8, max_length = 10 }
train = { epochs = 1, items = { use = "frozen", adapter = "linear", inner = 8 } }
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for line in "".join(blocks(page, "bash")).splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "reaemb-bench":
                yield page, words[1:]


@pytest.mark.parametrize(("page", "words"), [pytest.param(*each, id=" ".join(each[1])) for each in commands()])
def test_each_command_of_the_pages_has_its_verb_and_its_options(page: str, words: list[str]) -> None:
    verb = get_command(app)
    while hasattr(verb, "commands"):
        assert words[0] in verb.commands, f"{page}: {' '.join(words)}"
        verb, words = verb.commands[words[0]], words[1:]
    known = {option for each in verb.params for option in (*each.opts, *each.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_script_of_the_pictures_finds_what_it_imports() -> None:
    assert callable(runpy.run_path(str(ROOT / "docs" / "pictures" / "make.py"), run_name="pictures")["main"])
    assert all((ROOT / "docs" / "pictures" / f"{name}.svg").is_file() for name in ("live_view", "ablation", "table"))


@pytest.mark.parametrize("page", PAGES)
def test_each_link_of_the_pages_leads_to_a_file(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    gone = [link for link in links if "://" not in link and not ((ROOT / page).parent / link).exists()]
    assert not gone


@pytest.mark.slow
def test_the_method_of_the_readme_stands_in_a_suites_table(command: Command) -> None:
    code = next(block for block in blocks("README.md", "python") if block.startswith("# letters.py"))
    recipe = next(block for block in blocks("README.md", "toml") if block.startswith("# letters.toml"))
    assert len(code.split("\n")) <= 16
    for name, text in (("letters.py", code), ("letters.toml", recipe), ("suite.toml", SUITE)):
        Path(name).write_text(text, encoding="utf-8")
    said = command("bench", "suite.toml", "--out", "table.md")
    assert said.code == 0, said.out + said.err
    row = next(
        line for line in Path("table.md").read_text(encoding="utf-8").splitlines() if line.startswith("| letters")
    )
    assert re.search(r"\.\d{4}", row)
