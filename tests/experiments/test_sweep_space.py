"""Search spaces: what they draw, what they refuse."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load
from reaemb_bench.core.registry import find
from reaemb_bench.experiments.space import Settings, Space, Values, read_search, read_space, twin
from reaemb_bench.experiments.sweep import Sweep, sweep_of

optuna.logging.set_verbosity(optuna.logging.ERROR)


def space(text: str) -> Space:
    return read_space(tomllib.loads(text))


def swept(text: str, recipe: str = "quickstart") -> Sweep:
    return sweep_of(load(recipe), tomllib.loads(text), Settings(), Machine(mlflow=""), None, None)


def drawn(of: Space, seed: int) -> Values:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return of.drawn(study.ask())


CONDITIONAL = """
"train.objective" = { choices = ["cross-entropy", { use = "calibrated-bce", negatives = 4 }] }
"train.objective.negatives" = { low = 1, high = 8, when = { "train.objective" = "calibrated-bce" } }
"""


def test_a_conditional_setting_is_drawn_only_where_its_condition_holds() -> None:
    seen = [drawn(space(CONDITIONAL), seed) for seed in range(12)]
    for values in seen:
        chosen = values["train.objective"]
        assert ("train.objective.negatives" in values) == (chosen != "cross-entropy")
    assert {len(values) for values in seen} == {1, 2}


def test_what_a_study_remembers_gives_the_same_values_again() -> None:
    read = space(CONDITIONAL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(8):
        trial = study.ask()
        assert read.drawn(trial) == read.values_of(trial.params)


def test_a_component_of_a_choice_brings_its_settings() -> None:
    made = swept(CONDITIONAL).trial_recipe({"train.objective": {"use": "calibrated-bce", "negatives": 4}}, "x")
    assert made.steps["train"].spec()["objective"]["negatives"] == 4


def test_a_name_alone_keeps_what_the_recipe_sets_of_the_same_component() -> None:
    sweep = swept('"train.head" = { choices = ["sasrec", "gru4rec"] }')
    before = load("quickstart").steps["train"].spec()["head"]
    assert before["hidden"] != find("head", "sasrec")().hidden  # type: ignore[attr-defined]
    assert sweep.trial_recipe({"train.head": "sasrec"}, "x").steps["train"].spec()["head"] == before
    other = sweep.trial_recipe({"train.head": "gru4rec"}, "x").steps["train"].spec()["head"]
    assert other["use"] == "gru4rec"
    assert other["hidden"] == find("head", "gru4rec")().hidden  # type: ignore[attr-defined]


def test_a_grid_holds_every_point_once_and_no_setting_that_is_not_there() -> None:
    points = space(
        '"a.b" = { choices = [1, 2] }\n"a.c" = { low = 0.1, high = 0.3, step = 0.1, when = {"a.b" = 2} }'
    ).grid()
    assert [len(point) for point in points] == [1, 2, 2, 2]
    assert [round(point["a.c"], 6) for point in points[1:]] == [0.1, 0.2, 0.3]


def test_a_grid_of_endless_values_is_refused() -> None:
    with pytest.raises(UserError, match=r"^a.b: a grid needs choices"):
        space('"a.b" = { low = 0.1, high = 0.3 }').grid()


NUMBERS = {"train.learning_rate": (1e-6, 10.0), "train.head.dropout": (0.0, 0.9), "crrl.learning_rate": (1e-6, 1.0)}
WHOLE = {"train.batch_size": (1, 512), "train.patience": (1, 50), "reduce.reducer.dimensions": (1, 64)}
CHOICES = {
    "train.objective": ["cross-entropy", "bce", {"use": "sampled-softmax", "negatives": 7}],
    "lrcl.loss": ["info-nce", "soft-target-detached", {"use": "soft-target", "initial_temperature": 0.2}],
    "train.head": ["sasrec", "gru4rec", {"use": "bert4rec", "hidden": 16}],
}


@st.composite
def spaces(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for bounds, number in ((NUMBERS, st.floats), (WHOLE, st.integers)):
        for path in draw(st.lists(st.sampled_from(sorted(bounds)), unique=True)):
            low, high = sorted(draw(st.tuples(*[number(*bounds[path])] * 2)))
            made[path] = {"low": low, "high": high, "log": low > 0 and draw(st.booleans())}
    for path in draw(st.lists(st.sampled_from(sorted(CHOICES)), unique=True, min_size=1)):
        made[path] = {"choices": draw(st.lists(st.sampled_from(CHOICES[path]), min_size=1, unique_by=str))}
    # A component comes before its settings.
    if "train.head" in made:
        made.pop("train.head.dropout", None)
    return dict(sorted(made.items()))


@settings(max_examples=25, deadline=None)
@given(spaces(), st.integers(0, 1000))
def test_every_recipe_of_a_checked_space_validates_and_holds_what_was_drawn(raw: dict[str, Any], seed: int) -> None:
    sweep = sweep_of(load("quickstart"), raw, Settings(), Machine(mlflow=""), None, None)
    values = drawn(sweep.searched, seed)
    made = sweep.trial_recipe(values, "trial")
    assert set(values) == set(raw)
    assert [name for name, step in made.steps.items() if step.data_access == "test"] == []
    for path in values:
        if path in {**NUMBERS, **WHOLE}:
            step, *parts = path.split(".")
            found: Any = made.steps[step].spec()
            for part in parts:
                found = found[part]
            assert found == values[path]


MISTAKES = {
    '"train.lerning_rate" = { low = 1e-4, high = 1e-2 }': "Did you mean 'learning_rate'?",
    '"trian.learning_rate" = { low = 1e-4, high = 1e-2 }': "Did you mean 'train'?",
    '"train.learning_rate" = { low = 1e-2, high = 1e-4 }': "learning_rate: low (0.01) is above high (0.0001)",
    '"train.learning_rate" = { low = -1.0, high = 1.0 }': "learning_rate: give a number above 0, not -1.0",
    '"train.learning_rate" = { low = 0.0, high = 1.0, log = true }': "log needs a low above 0",
    '"train.learning_rate" = { lo = 1e-4, high = 1e-2 }': "no setting is called 'lo'. Did you mean 'low'?",
    '"train.learning_rate" = { high = 1e-2 }': "give low and high, or choices",
    '"train.learning_rate" = { low = "a", high = 1 }': "train.learning_rate.low",
    '"lrcl.loss" = { choices = ["info-nec"] }': "Did you mean 'info-nce'?",
    '"lrcl.loss" = { choices = ["info-nce", "info-nce"] }': "a choice stands twice",
    '"lrcl.loss" = { choices = [] }': "give low and high, or choices that are not empty",
    '"rank.top" = { low = 1, high = 5 }': "space.rank.top: a sweep ends with the recommender, so 'rank' never runs",
    "train.learning_rate = { low = 1e-4, high = 1e-2 }": 'space.train: write the whole path in quotes: "train.SETTING"',
    "": "add at least one setting",
    '"train.objective" = { choices = ["sampled-softmax", "bce"] }\n"train.objective.corrected" = { choices = [1] }': (
        "space.train.objective.corrected: no setting is called 'corrected'"
    ),
    '"lrcl.steps" = { low = 1, high = 2, when = { "lrcl.los" = "info-nce" } }': "no path above is called 'lrcl.los'",
    CONDITIONAL.replace('= "calibrated-bce"', '= "calibrated-bec"').replace('use = "calibrated-bec"', 'use = "bce"'): (
        "train.objective has no choice 'calibrated-bec'"
    ),
}


@pytest.mark.parametrize("text", list(MISTAKES))
def test_a_mistake_in_the_space_is_named_before_any_trial(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        swept(text)
    assert MISTAKES[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_leaks_is_refused() -> None:
    with pytest.raises(UserError, match="'crrl' looks at held-out data on purpose"):
        swept('"train.patience" = { low = 1, high = 2 }', "recipes/paper/yelp.toml")


def test_a_choice_that_would_leak_is_refused() -> None:
    toys = Path(__file__).parents[1] / "helpers" / "toy_steps.py"
    with pytest.raises(UserError, match="allow_leaks"):
        swept(f'"reduce.use" = {{ choices = ["reduce", "{toys}:Leaky"] }}')


@pytest.mark.parametrize("recipe", ["quickstart", "reaemb_full"])
def test_shipped_spaces_fit_the_recipes_that_they_stand_beside(recipe: str) -> None:
    raw, read = read_search(twin(recipe), {})
    made = sweep_of(load(recipe), raw, read, Machine(mlflow=""), None, None)
    assert len(made.searched.dimensions) >= 4


def test_the_head_of_a_space_file_names_its_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "x.search.toml"
    for text, part in {
        "[sweep]\nsampler = 'tpee'": "sweep.sampler",
        "[sweep]\nobjectives = ['validation/ndgc@10']": "Did you mean 'validation/ndcg@10'?",
        "[sweep]\nobjectives = ['test/ndcg@10']": "no objective is called 'test/ndcg@10'",
        "[swep]\ntrials = 1": "Did you mean 'sweep'?",
    }.items():
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            read_search(file, {})
        assert part in str(caught.value) and str(file) in str(caught.value)
    assert not isinstance(caught.value, RecipeError)
