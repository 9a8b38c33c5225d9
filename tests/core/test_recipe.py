"""Recipes: extends, --set, --drop, and what a child keeps of its parent."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.recipe import drop, from_raw, load, locate, merge
from tests.conftest import TOYS


def _child(folder: Path, text: str) -> Path:
    file = folder / "child.toml"
    file.write_text(f'extends = "toys.toml"\n{text}', encoding="utf-8")
    return file


def test_a_child_changes_one_setting_and_keeps_the_rest(toy_recipe: Path) -> None:
    recipe = load(_child(toy_recipe.parent, "[train]\nrate = 0.5\n"))
    assert recipe.steps["train"].spec()["rate"] == 0.5
    assert list(recipe.steps) == ["prepare", "embed", "train", "rank"]


def test_another_component_replaces_the_table_whole(toy_recipe: Path) -> None:
    parent = _child(toy_recipe.parent, "[embed]\nwidth = 7\n")
    (toy_recipe.parent / "grandchild.toml").write_text(
        f"extends = 'child.toml'\n[embed]\nuse = '{TOYS}:Fit'\nrate = 0.5\n", encoding="utf-8"
    )
    assert "width" in parent.read_text(encoding="utf-8")
    recipe = load(toy_recipe.parent / "grandchild.toml")
    assert "width" not in recipe.steps["embed"].spec()


def test_merge_lays_settings_over_a_component_given_by_name() -> None:
    assert merge({"a": "pca"}, {"a": {"dimensions": 3}}) == {"a": {"use": "pca", "dimensions": 3}}
    assert merge({"a": {"use": "pca", "dimensions": 3}}, {"a": {"use": "none"}}) == {"a": {"use": "none"}}
    assert merge({"a": {"use": "pca", "dimensions": 3}}, {"a": "none"}) == {"a": "none"}


@pytest.mark.parametrize("text", ["train.rate=0.5", "train.rate = 0.5"])
def test_set_reads_toml_values(toy_recipe: Path, text: str) -> None:
    assert load(toy_recipe, sets=[text]).steps["train"].spec()["rate"] == 0.5


def test_set_takes_bare_words_and_lists(toy_recipe: Path) -> None:
    recipe = load(toy_recipe, sets=["train.stop=error", "seeds=[1, 2]"])
    assert recipe.steps["train"].spec()["stop"] == "error"
    assert recipe.seeds == (1, 2)


def test_a_seed_counts_once(toy_recipe: Path) -> None:
    with pytest.raises(RecipeError, match="a seed stands twice"):
        load(toy_recipe, sets=["seeds=[42, 42]"])


def test_drop_takes_out_a_step_with_its_table(toy_recipe: Path) -> None:
    assert list(load(toy_recipe, drops=["rank"]).steps) == ["prepare", "embed", "train"]


def test_drop_takes_out_a_part() -> None:
    raw = {"steps": ["reduce"], "reduce": {"reducer": {"use": "pca", "dimensions": 3}}}
    assert drop(raw, "reduce.reducer")["reduce"] == {"reducer": None}
    step = from_raw(drop(raw, "reduce.reducer"), "x").steps["reduce"]
    assert step.spec()["reducer"]["use"] == "none"


def test_the_resolved_recipe_reads_back_to_the_same_steps(toy_recipe: Path) -> None:
    recipe = load(toy_recipe, sets=["train.rate=0.5"])
    again = from_raw(tomllib.loads(recipe.toml()), "again")
    assert {name: step.identity() for name, step in again.steps.items()} == {
        name: step.identity() for name, step in recipe.steps.items()
    }


def test_plug_ins_lie_beside_the_recipe_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.py").write_bytes(TOYS.read_bytes())
    (home / "recipe.toml").write_text('steps = ["a"]\n[a]\nuse = "mine.py:Prepare"\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert load(home / "recipe.toml").steps["a"].spec()["users"] == 6


def test_shipped_recipes_are_found_by_name() -> None:
    assert locate("quickstart").samefile(locate("recipes/quickstart.toml"))
    with pytest.raises(UserError, match=r"no recipe recipes/quickstrt\.toml.*Did you mean 'quickstart'"):
        locate("recipes/quickstrt.toml")


def test_two_steps_of_one_name_are_refused(toy_recipe: Path) -> None:
    with pytest.raises(RecipeError, match="'train' stands twice"):
        load(toy_recipe, sets=["steps=['prepare', 'train', 'train', 'embed', 'rank']"])


def test_a_recipe_in_a_methods_folder_has_the_methods_name(toy_recipe: Path) -> None:
    folder = toy_recipe.parent / "my_method"
    folder.mkdir()
    names = {"recipe.toml": "my_method", "recipe_wide_open.toml": "my_method_wide_open", "recipes.toml": "recipes"}
    for file, name in names.items():
        (folder / file).write_text('extends = "../toys.toml"\n', encoding="utf-8")
        assert load(folder / file).name == name
