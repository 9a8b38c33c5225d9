"""What every baseline owes its readers: it plans, says what it is, trains like the others, and runs."""

import ast
import contextlib
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import RecipeError
from reaemb_bench.core.execute import execute, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import Recipe, from_raw, load
from reaemb_bench.core.registry import find
from reaemb_bench.core.store import Store
from tests.helpers.baselines import BASELINES, tiny, write_models

EVERY = sorted(BASELINES.glob("*/recipe*.toml"))
METHODS = sorted({file.parent for file in EVERY})
TUNED = {"reaemb", "llmemb", "said", "tslrec", "llm2rec", "llm2vec"}
"""Methods that train a language model, whose small sizes are their own tests' business."""
UNTUNED = [folder.name for folder in METHODS if folder.name not in TUNED]
MACHINE = Machine(device="cpu", mlflow="")


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@pytest.mark.parametrize("file", EVERY, ids=name_of)
def test_it_plans_and_its_resolved_text_is_the_same_recipe(file: Path) -> None:
    recipe = load(file)
    again = from_raw(tomllib.loads(recipe.toml()), recipe.name)
    keys = [job.key for job in plan(recipe, recipe.seeds[0]).jobs]
    assert [job.key for job in plan(again, recipe.seeds[0]).jobs] == keys
    assert recipe.name == file.stem.replace("recipe", file.parent.name, 1)


@pytest.mark.parametrize("folder", METHODS, ids=lambda folder: folder.name)
def test_it_says_where_it_comes_from_what_it_does_and_how_it_differs(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    parts = re.findall(r"^(?:## )?(Source|What it does|Deviations|Expected)\b", text, re.MULTILINE)
    assert parts == ["Source", "What it does", "Deviations", "Expected"]
    variants = {file.stem for file in folder.glob("recipe_*.toml")}
    assert variants <= set(re.findall(r"recipe_\w+", text)), "a variant that the README does not name"


def test_titles_tell_the_recipes_apart() -> None:
    titles = [load(file).title for file in EVERY]
    assert len(set(titles)) == len(titles)


def recommender(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe's training but for its item table."""
    return {name: value for name, value in recipe.raw["train"].items() if name != "items"}


@pytest.mark.parametrize("method", UNTUNED)
def test_only_the_item_table_differs_between_their_recommenders(method: str) -> None:
    shared = recommender(load(BASELINES / "common.toml", drops=["embed"]))
    for file in (BASELINES / method).glob("recipe*.toml"):
        train = recommender(load(file))
        assert shared.items() <= train.items()
        assert train.keys() - shared.keys() <= {"use", "ids", "texts", "neighbours", "weight"}


def components(file: Path) -> list[type[Component]]:
    """The components of a plug-in file; its other classes, such as networks, cannot be named in a recipe."""
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            with contextlib.suppress(RecipeError):
                found.append(find("step", f"{file}:{node.name}"))
    return found


@pytest.mark.parametrize("file", sorted(BASELINES.glob("*/component.py")), ids=lambda file: file.parent.name)
def test_its_components_say_what_they_are_and_what_each_setting_does(file: Path) -> None:
    assert components(file)
    for component in components(file):
        assert component.__doc__
        assert all(field.description for field in component.model_fields.values()), component.__name__


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """Tiny models, and one store for all, so that what baselines share is computed once."""
    return write_models(tmp_path_factory.mktemp("models")), Store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("file", [file for file in EVERY if file.parent.name in UNTUNED], ids=name_of)
def test_it_runs_from_data_to_ranks(file: Path, place: tuple[Path, Store]) -> None:
    models, store = place
    planned = plan(tiny(file, models), 42)
    execute(planned, store, MACHINE, lambda event: None)
    ranks, floors = fetch(planned, store, Ranks), fetch(planned, store, Floors)
    assert ranks is not None and floors is not None
    assert np.array_equal(ranks.users, floors.by_name["random"].users)
    # A recommender that knows something does not give everything the same score.
    assert not ranks.tied.any() and len(np.unique(ranks.better)) > 10
    assert planned.leaks == ()


def test_baselines_on_a_frozen_language_model_share_its_vectors(place: tuple[Path, Store]) -> None:
    methods = ("frozen_llm_mean", "llm2x", "llminit", "whitenrec", "whitenrec_plus", "unisrec", "ensrec", "llm_esr")
    keys = {
        job.key
        for method in methods
        for seed in (1, 2)
        for job in plan(load(BASELINES / method / "recipe.toml"), seed).jobs
        if job.name == "encode"
    }
    assert len(keys) == 1
