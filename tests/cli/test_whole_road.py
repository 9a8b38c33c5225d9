"""The whole road, from a data file to ranks, through the real components: what must hold from end to end."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Artifact, Corpus, Floors, Ranks, Vectors
from reaemb_bench.core.execute import Event, Finished, execute, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import Recipe, load
from reaemb_bench.core.store import Store
from reaemb_bench.data.sources.simulated import Simulated

SMALL = (
    "lrcl.steps=2",
    "lrcl.batch_size=8",
    "crrl.steps=2",
    "crrl.rollouts_per_step=16",
    "reduce.reducer.dimensions=16",
    "train.epochs=2",
)
MACHINE = Machine(device="cpu", mlflow="")


def write_table(folder: Path, *, permute_held_out: bool = False) -> Path:
    """Simulated shoppers as files; with `permute_held_out`, their last two items are dealt anew among them."""
    data = Simulated(users=60, items=40).read(MACHINE)
    histories = {
        str(user[0]): rows.sort("timestamp") for user, rows in data.frame.group_by("user", maintain_order=True)
    }
    last = [(rows["item"][-2], rows["item"][-1]) for rows in histories.values()]
    if permute_held_out:
        last = [last[place] for place in np.random.default_rng(5).permutation(len(last))]
    lines = ["user_id,item_id,timestamp"]
    for (user, rows), held_out in zip(histories.items(), last, strict=True):
        items = [*rows["item"].to_list()[:-2], *held_out]
        lines += [f"{user},{item},{place}" for place, item in enumerate(items)]
    folder.mkdir()
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [json.dumps({"item_id": key, **attributes}) for key, attributes in data.items.items()]
    (folder / "items.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


def recipe_for(folder: Path, *more: str) -> Recipe:
    source = (
        f'prepare.source={{use = "table", interactions = "{folder}/interactions.csv", items = "{folder}/items.jsonl", '
        'attributes = ["category", "brand"]}'
    )
    return load("quickstart", [source, *SMALL, *more])


def run(recipe: Recipe, root: Path) -> tuple[Store, list[str]]:
    """The store after a run, and the names of the steps that were computed."""
    store, computed = Store(root), []

    def watch(event: Event) -> None:
        if isinstance(event, Finished) and not event.cached:
            computed.append(event.job.name)

    execute(plan(recipe, recipe.seeds[0]), store, MACHINE, watch)
    return store, computed


def files_of(recipe: Recipe, store: Store, artifact: type[Artifact]) -> dict[str, bytes]:
    job = plan(recipe, recipe.seeds[0]).job_of(artifact)
    assert job is not None
    folder = store.verify(job.key, artifact.__name__.lower())
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data") / "shop")


@pytest.fixture(scope="module")
def finished(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Store]:
    recipe = recipe_for(table)
    store, computed = run(recipe, tmp_path_factory.mktemp("store"))
    assert computed == list(recipe.steps)
    return recipe, store


def test_a_second_run_computes_nothing(finished: tuple[Recipe, Store]) -> None:
    recipe, store = finished
    assert run(recipe, store.root)[1] == []


def test_a_setting_of_the_head_reruns_only_from_the_head(finished: tuple[Recipe, Store], table: Path) -> None:
    _, store = finished
    assert run(recipe_for(table, "train.head.dropout=0.4"), store.root)[1] == ["train", "rank"]


def test_without_the_second_stage_the_first_is_reused(finished: tuple[Recipe, Store], table: Path) -> None:
    recipe, store = finished
    shorter = load("quickstart", [f"prepare.source={json_to_toml(recipe)}", *SMALL], ["crrl"])
    assert run(shorter, store.root)[1] == ["encode", "alignment", "reduce", "train", "rank"]


def json_to_toml(recipe: Recipe) -> str:
    source = recipe.raw["prepare"]["source"]
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in source.items()) + "}"


def test_the_same_recipe_in_an_empty_store_gives_the_same_bits(finished: tuple[Recipe, Store], tmp_path: Path) -> None:
    recipe, store = finished
    again, computed = run(recipe, tmp_path / "again")
    assert computed == list(recipe.steps)
    for artifact in (Vectors, Ranks, Floors):
        assert files_of(recipe, store, artifact) == files_of(recipe, again, artifact)


def test_held_out_rows_change_nothing_before_the_judge(finished: tuple[Recipe, Store], tmp_path: Path) -> None:
    recipe, store = finished
    other_recipe = recipe_for(write_table(tmp_path / "shop", permute_held_out=True))
    other, _ = run(other_recipe, tmp_path / "store")
    assert files_of(recipe, store, Corpus) == files_of(other_recipe, other, Corpus)
    assert files_of(recipe, store, Vectors) == files_of(other_recipe, other, Vectors)
    assert files_of(recipe, store, Ranks) != files_of(other_recipe, other, Ranks)


def test_ranks_speak_of_every_test_user_once(finished: tuple[Recipe, Store]) -> None:
    recipe, store = finished
    ranks = fetch(plan(recipe, recipe.seeds[0]), store, Ranks)
    corpus = fetch(plan(recipe, recipe.seeds[0]), store, Corpus)
    assert ranks is not None and corpus is not None
    assert sorted(ranks.users.tolist()) == list(range(60))
    assert (ranks.better + ranks.tied < ranks.catalogue).all()
    assert np.array_equal(ranks.popularity, corpus.popularity[ranks.targets])


def test_a_lost_artefact_is_computed_again_from_what_is_left(finished: tuple[Recipe, Store], tmp_path: Path) -> None:
    recipe, store = finished
    root = tmp_path / "copy"
    shutil.copytree(store.root, root)
    job = plan(recipe, recipe.seeds[0]).job_of(Vectors)
    assert job is not None
    before = files_of(recipe, store, Vectors)
    shutil.rmtree(Store(root).folder(job.key))
    # Everything that depends on it is still there, so nothing has to run until somebody asks for the vectors.
    assert run(recipe, root)[1] == []
    ends = load("quickstart", [f"prepare.source={json_to_toml(recipe)}", *SMALL], ["train", "rank", "floors"])
    assert run(ends, root)[1] == ["reduce"]
    assert files_of(ends, Store(root), Vectors) == before
