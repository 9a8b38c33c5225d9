"""Every shipped recipe plans, and the paper's say in one line what they lack."""

import tomllib
from pathlib import Path

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import from_raw, load
from reaemb_bench.core.store import Store

RECIPES = ["recipes/quickstart.toml", "recipes/reaemb_full.toml"]
PAPER = [
    f"recipes/paper/{name}{head}.toml" for name in ("yelp", "cd", "games") for head in ("", "_gru4rec", "_bert4rec")
]


@pytest.mark.parametrize("name", [*RECIPES, *PAPER])
def test_it_plans_and_its_resolved_text_is_the_same_recipe(name: str) -> None:
    recipe = load(name)
    again = from_raw(tomllib.loads(recipe.toml()), recipe.name)
    keys = [job.key for job in plan(recipe, recipe.seeds[0]).jobs]
    assert [job.key for job in plan(again, recipe.seeds[0]).jobs] == keys


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_name_the_missing_file_and_keep_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    recipe = load(name)
    with pytest.raises(UserError, match=r"data/\w+/interactions.csv") as caught:
        execute(plan(recipe, 42), store, Machine(mlflow=""), lambda event: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store" / "results").exists()


def test_sound_recipes_read_no_held_out_data_and_the_papers_say_that_they_do() -> None:
    for name in RECIPES:
        assert plan(load(name), 42).leaks == ()
    for name in PAPER:
        assert plan(load(name), 42).leaks == ("crrl",)


def test_a_path_is_relative_to_the_file_that_names_it_else_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "recipes", tmp_path / "elsewhere"
    for name in ("rows.csv", "data/items.csv", "ml-1m/ratings.dat"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("user,item\n", encoding="utf-8")
    elsewhere.mkdir()
    source = '{ use = "table", interactions = "rows.csv", items = "data/items.csv" }'
    (folder / "mine.toml").write_text(f"extends = 'quickstart'\nprepare.source = {source}\n", encoding="utf-8")
    movies = '{ use = "movielens-1m", path = "ml-1m" }'
    (folder / "movies.toml").write_text(f"extends = 'mine.toml'\nprepare.source = {movies}\n", encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    read = load(folder / "mine.toml").raw["prepare"]["source"]
    assert [Path(read[name]) for name in ("interactions", "items")] == [folder / "rows.csv", folder / "data/items.csv"]
    assert Path(load(folder / "movies.toml").raw["prepare"]["source"]["path"]) == folder / "ml-1m"
    (folder / "rows.csv").unlink()
    assert load(folder / "mine.toml").raw["prepare"]["source"]["interactions"] == "rows.csv"
