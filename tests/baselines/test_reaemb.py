"""ReaEmb's ablations differ from their parents in exactly what they say."""

from typing import Any

import pytest

from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import SHIPPED, Recipe, load

FOLDER = SHIPPED / "baselines" / "reaemb"
OF_RECIPE = {
    "recipe_without_lrcl": ("recipe", {"lrcl.steps": 0}),
    "recipe_two_thoughts": ("recipe", {"llm.reasoner.thoughts": 2}),
    "recipe_sampled_candidates": ("recipe", {"crrl.candidates_from": "sampled"}),
    "recipe_three_positives": ("recipe_sampled_candidates", {"crrl.positives": 3}),
    "recipe_batch_advantage": ("recipe_score_function", {"crrl.advantage.use": "batch-baseline-paper"}),
}
"""Recipe -> its parent, and the settings in which it differs from that."""


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
    of, changed = OF_RECIPE[name]
    parent, child = all_settings(read(of)), all_settings(read(name))
    assert list(read(name).steps) == list(read(of).steps)
    assert {key: value for key, value in child.items() if parent.get(key) != value} == changed


def test_the_method_is_that_of_reaemb_full() -> None:
    ours, full = all_settings(read("recipe")), all_settings(load("reaemb_full"))
    own = {"lrcl.steps"}
    for step in ("llm.reasoner", "llm.pooling", "lrcl", "crrl"):
        assert {key: value for key, value in ours.items() if key.startswith(f"{step}.") and key not in own} == {
            key: value for key, value in full.items() if key.startswith(f"{step}.") and key not in own
        }


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
