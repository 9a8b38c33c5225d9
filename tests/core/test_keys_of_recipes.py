"""Whatever setting or file of a shipped recipe changes, the key of its step changes too."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.catalogue import CATALOGUE
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.plan import flatten, plan
from reaemb_bench.core.recipe import SHIPPED, Recipe, from_raw, load, shipped_names
from reaemb_bench.core.registry import build

# Settings that decide where and how fast a step runs, and no number.
MACHINE = {"cache_gb"}
RECIPES = [name for name in shipped_names() if not name.startswith(("ablations", "evidence/evidence", "suites/"))] + [
    str(file) for file in sorted((SHIPPED / "baselines").glob("*/recipe*.toml"))
]
SOURCES: dict[str, dict[str, str]] = {
    "amazon-2014": {"reviews": "r.json", "metadata": "m.json"},
    "amazon-2018": {"reviews": "r.json", "metadata": "m.json"},
    "amazon-2023": {"reviews": "r.jsonl", "metadata": "m.jsonl"},
    "goodreads": {"reviews": "i.json.gz", "metadata": "b.json.gz", "authors": "a.json.gz"},
    "movielens-1m": {"path": "ratings.dat movies.dat"},
    "movielens-20m": {"path": "ratings.csv movies.csv"},
    "movielens-32m": {"path": "ratings.csv movies.csv"},
    "reaemb-authors": {"interactions": "inter.txt", "items": "item_info.jsonline"},
    "recbole-atomic": {"path": "shop.inter shop.item"},
    "table": {"interactions": "i.csv", "items": "t.csv"},
    "yelp": {"reviews": "r.json", "metadata": "b.json"},
}


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        yield path, value
    else:
        for name, part in parts:
            yield from leaves(part, (*path, name))


def another(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice([-1, 1, 2])
    if isinstance(value, float):
        return value * rng.choice([0.5, 0.9, 1.1])
    if isinstance(value, str):
        return rng.choice([*(name for table in CATALOGUE.values() if value in table for name in table), f"{value}x"])
    return rng.choice([1, 0.5, "x"])


def mutated(recipe: Recipe, rng: random.Random) -> tuple[str, Recipe]:
    """The recipe with one setting changed, and the step to which it belongs. Raises UserError if it is not valid."""
    header = {name: value for name, value in recipe.raw.items() if not isinstance(value, dict)}
    tables = {name: copy.deepcopy(step.spec()) for name, step in recipe.steps.items()}
    step = rng.choice(list(tables))
    path, value = rng.choice(list(leaves(tables[step])))
    table: Any = tables[step]
    for name in path[:-1]:
        table = table[name]
    table[path[-1]] = another(value, rng)
    if path[-1] == "use":
        # The other settings belong to the component that was there.
        for name in list(table):
            if name != "use":
                del table[name]
    return step, from_raw({**header, **tables}, recipe.name)


@pytest.mark.parametrize("number", range(100))
def test_any_setting_of_a_shipped_recipe_that_changes_changes_the_key(number: int) -> None:
    rng = random.Random(number)
    while True:
        recipe = load(rng.choice(RECIPES))
        try:
            step, other = mutated(recipe, rng)
            after = {job.name: job.key for job in plan(other, 1).jobs}
        except UserError:
            continue
        specs = [flatten(changed.steps[step].spec()) for changed in (recipe, other)]
        settings = {name for name in {**specs[0], **specs[1]} if specs[0].get(name) != specs[1].get(name)}
        if settings <= MACHINE:
            continue
        before = {job.name: job.key for job in plan(recipe, 1).jobs}
        assert before[step] != after[step], f"{recipe.name}: {step}, {settings}"
        return


@pytest.mark.parametrize("source", SOURCES)
def test_any_byte_of_any_file_that_a_source_reads_changes_the_key(source: str, tmp_path: Path) -> None:
    rng = random.Random(source)
    settings: dict[str, str] = {}
    files: list[Path] = []
    for setting, names in SOURCES[source].items():
        files += [tmp_path / name for name in names.split()]
        settings[setting] = str(tmp_path if " " in names else tmp_path / names)
    for file in files:
        file.write_bytes(rng.randbytes(100))
    built = build("source", {"use": source, **settings})
    identities = [built.identity()]
    for file in files:
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        identities.append(built.identity())
    assert all(identity not in identities[:number] for number, identity in enumerate(identities))
    assert str(tmp_path) not in str(identities)
