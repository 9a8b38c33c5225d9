"""ReaEmb's ablations differ from their parents in exactly what they say."""

from typing import Any

import pytest

from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import SHIPPED, Recipe, load

FOLDER = SHIPPED / "baselines" / "reaemb"
OF_RECIPE = {
    "recipe_without_lrcl": {"lrcl.steps": 0},
    "recipe_batch_advantage": {"crrl.advantage.use": "batch-baseline-paper"},
    "recipe_two_thoughts": {"llm.reasoner.thoughts": 2},
    "recipe_three_positives": {"crrl.positives": 3},
}


def read(name: str) -> Recipe:
    return load(FOLDER / f"{name}.toml")


def settings(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Every setting of a recipe's steps by its dotted path."""
    made: dict[str, Any] = {}
    for name, value in table.items():
        made.update(settings(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value})
    return made


def all_settings(recipe: Recipe) -> dict[str, Any]:
    return settings({name: step.spec() for name, step in recipe.steps.items()})


@pytest.mark.parametrize("name", OF_RECIPE)
def test_an_ablation_changes_the_one_setting_that_it_names(name: str) -> None:
    parent, child = all_settings(read("recipe")), all_settings(read(name))
    assert list(read(name).steps) == list(read("recipe").steps)
    assert {key: value for key, value in child.items() if parent.get(key) != value} == OF_RECIPE[name]


def test_without_the_second_stage_nothing_else_is_missing() -> None:
    whole, shorter = read("recipe"), read("recipe_without_crrl")
    assert {name: step for name, step in whole.steps.items() if name != "crrl"} == shorter.steps


def test_without_the_thought_the_first_stage_is_the_same() -> None:
    parent, child = read("recipe_without_crrl"), read("recipe_without_thought")
    assert [name for name in parent.steps if parent.steps[name] != child.steps[name]] == ["llm"]
    assert child.steps["llm"].spec()["reasoner"] == {"use": "none"}


def test_the_stages_are_added_to_the_frozen_model_that_all_baselines_start_from() -> None:
    frozen, tuned = load(SHIPPED / "baselines" / "llm.toml"), read("recipe_without_crrl")
    assert [name for name in frozen.steps if frozen.steps[name] != tuned.steps[name]] == ["llm"]
    assert set(tuned.steps) - set(frozen.steps) == {"lrcl"}


def test_the_released_variant_alone_leaks() -> None:
    leaks = {file.stem: plan(read(file.stem), 42).leaks for file in FOLDER.glob("*.toml")}
    assert leaks.pop("recipe_paper") == ("crrl",)
    assert set(leaks.values()) == {()}
