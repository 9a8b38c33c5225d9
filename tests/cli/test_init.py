"""`init` writes a recipe that works as it is; `new` writes components and tests that do."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load
from tests.conftest import Said

Command = Callable[..., Said]

KINDS = {
    "loss": "lrcl.loss",
    "reward": "crrl.reward",
    "advantage": "crrl.advantage",
    "pooling": "llm.pooling",
    "reducer": "reduce.reducer",
    "objective": "train.objective",
    "floor": "floors.floors",
    "step": "embed.use",
}


def test_a_first_recipe_plans_and_explains_itself(command: Command) -> None:
    said = command("init", "first.toml")
    assert said.code == 0, said.err
    assert said.out.splitlines()[0] == "written: first.toml"
    recipe = load("first.toml")
    assert recipe.title == "ReaEmb on MovieLens-100K"
    assert [job.name for job in plan(recipe, 42).jobs] == list(recipe.steps)
    lines = Path("first.toml").read_text(encoding="utf-8").splitlines()
    steps = [above for above, line in pairwise(lines) if line.startswith("[") and "." not in line]
    assert all(above.startswith("#") for above in steps)


def test_a_recipe_on_own_files_names_their_columns_and_filters(command: Command, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "rows.csv").write_text("household,ASIN,when\nann,a1,1\n", encoding="utf-8")
    (shop / "things.csv").write_text("asin,title,brand\na1,Tea,Leafwell\n", encoding="utf-8")
    refused = command("init", "mine.toml", "--data", shop)
    assert refused.code == 2
    assert "--column user=NAME" in refused.err
    assert not Path("mine.toml").exists()
    said = command("init", "mine.toml", "--data", shop, "--column", "user=household")
    assert said.code == 0, said.err
    source = tomllib.loads(Path("mine.toml").read_text(encoding="utf-8"))["prepare"]["source"]
    assert source["interactions"] == str((shop / "rows.csv").resolve())
    assert (source["user"], source["item"], source["item_key"], source["title"]) == (
        "household",
        "ASIN",
        "asin",
        "title",
    )
    assert load("mine.toml").steps["prepare"].spec()["filters"] == [
        {"use": "k-core", "user_minimum": 5, "item_minimum": 5}
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["init", "there.toml"], "there.toml exists and is left as it is"),
        (["init", "recipe.txt"], "a recipe's name ends with .toml"),
        (["init", "x.toml", "--column", "user=who"], "--column goes with --data"),
        (["init", "x.toml", "--data", "one.csv"], "items are missing"),
        (["new", "los", "mine"], "Did you mean 'loss'?"),
        (["new", "backbone", "mine"], "no example of a backbone"),
        (["new", "loss", "my-loss"], "not a name for a Python file"),
        (["new", "loss", "there"], "there.py exists"),
    ],
)
def test_what_is_there_or_cannot_be_is_refused_in_one_line(command: Command, words: list[str], says: str) -> None:
    Path("there.toml").write_text("mine = true", encoding="utf-8")
    Path("there.py").write_text("mine = True", encoding="utf-8")
    Path("one.csv").write_text("user,item\nu,i\n", encoding="utf-8")
    said = command(*words)
    assert said.code == 2
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert sorted(file.name for file in Path().iterdir()) == ["one.csv", "there.py", "there.toml"]


@pytest.fixture(scope="module")
def scaffolded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a component of each kind, as `new` wrote them."""
    folder = tmp_path_factory.mktemp("scaffolds")
    script = "from reaemb_bench.cli.components import new\nfrom pathlib import Path\n" + "".join(
        f"new({kind!r}, 'my_{kind}', Path())\n" for kind in KINDS
    )
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_tests_of_all_scaffolds_pass_where_they_were_written(scaffolded: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(words, cwd=scaffolded, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert f"{len(KINDS)} passed" in ended.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaffold_fits_where_new_says_that_it_goes(scaffolded: Path, kind: str) -> None:
    made = f"{scaffolded / f'my_{kind}.py'}:My{kind.capitalize()}"
    recipe = "baselines/random_table/recipe.toml" if kind == "step" else "quickstart"
    value = f'["{made}"]' if kind == "floor" else f'"{made}"'
    assert plan(load(recipe, [f"{KINDS[kind]}={value}"]), 1).jobs
