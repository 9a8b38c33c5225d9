"""Published counts of data: a run and `data prepare` say whether this is the published data, and what was removed."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.recipe import SHIPPED
from reaemb_bench.report.expected import read_expected
from tests.conftest import Said

Command = Callable[..., Said]

COUNTS = """\
[[counts]]
recipes = ["shop"]
users = 60
items = 40
interactions = 800
source = "counted by hand"
"""


def write(folder: Path, recipe: str, counts: str) -> Path:
    (folder / "expected.toml").write_text(counts, encoding="utf-8")
    (folder / "shop.toml").write_text(recipe, encoding="utf-8")
    return folder / "shop.toml"


def shop(folder: Path, interactions: int = 803, users: int = 60) -> Path:
    recipe = (
        'steps = ["prepare", "train", "rank"]\n'
        '[prepare]\nsource = { use = "simulated", users = 60, items = 40, clusters = 4 }\n'
        "[train]\nuse = 'train-ids'\nhead = { use = 'sasrec', hidden = 8, max_length = 10 }\nepochs = 1\n"
    )
    return write(folder, recipe, COUNTS.replace("800", str(interactions)).replace("users = 60", f"users = {users}"))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_data_that_are_the_published_ones_are_told_so(command: Command, tmp_path: Path) -> None:
    wanted = "counts match those published (counted by hand): 60 users, 40 items, 803 interactions"
    recipe = shop(tmp_path)
    for verb in (("data", "prepare"), ("run",)):
        said = command(*verb, recipe)
        assert said.code == 0, said.err
        assert wanted in flat(said.out)


def test_other_data_are_told_by_how_much_they_differ(command: Command, tmp_path: Path) -> None:
    recipe = shop(tmp_path, interactions=2_000, users=48)
    for verb in (("data", "prepare"), ("run",)):
        said = command(*verb, recipe)
        assert said.code == 0, said.err
        assert "counts differ from those published (counted by hand): +12 users, -1,197 interactions" in flat(said.out)


def test_a_run_whose_data_are_gone_from_the_store_compares_nothing(tmp_path: Path) -> None:
    [line] = read_expected(shop(tmp_path)).counted({})
    assert line.startswith("published counts (counted by hand) not compared: ")


def test_filters_and_cold_targets_are_counted_on_the_screen(command: Command, tmp_path: Path) -> None:
    recipe = write(
        tmp_path,
        'steps = ["prepare"]\n[prepare]\nsource = "simulated"\nsplit = "temporal"\n'
        'filters = [{ use = "k-core", item_minimum = 30 }]\n',
        COUNTS,
    )
    said = command("data", "prepare", recipe)
    assert said.code == 0, said.err
    lines = [flat(line) for line in said.out.splitlines()]
    assert "removed: k-core 1,742 interactions, 79 users, 82 items" in lines
    shown = {words: int(count) for words, _, count in (line.rpartition(" ") for line in lines) if count.isdigit()}
    assert shown["test targets with a training interaction"] + shown["test targets without one"] == shown["test users"]
    assert shown["test users without a training interaction"] >= 0


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("item = 3", "counts.0.item: no setting is called 'item'. Did you mean 'items'?"),
        ("users = 0", "counts.0.users: give a number of at least 1"),
    ],
)
def test_a_mistake_in_the_counts_is_one_line(line: str, part: str, tmp_path: Path) -> None:
    name = line.split()[0]
    counts = "\n".join(each for each in COUNTS.splitlines() if each.split()[0] != name)
    with pytest.raises(UserError, match=r"expected\.toml") as caught:
        read_expected(write(tmp_path, "", f"{counts}\n{line}\n"))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["paper", "public", "reference"])
def test_shipped_counts_name_shipped_recipes_and_every_recipe_of_the_paper_has_some(folder: str) -> None:
    file = SHIPPED / "recipes" / folder / "expected.toml"
    named = [name for each in tomllib.loads(file.read_text(encoding="utf-8"))["counts"] for name in each["recipes"]]
    assert all(file.with_name(f"{name}.toml").is_file() for name in named)
    assert len(named) == len(set(named))
    if folder == "paper":
        assert sorted(named) == ["cd", "games", "yelp"]
