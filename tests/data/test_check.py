"""`data check` says what is in one's own files, and its settings are those that a recipe needs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import polars
import pytest

from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import from_raw
from reaemb_bench.core.registry import build
from reaemb_bench.data.check import guess, worth_a_prompt
from tests.conftest import Said

Command = Callable[..., Said]

ROWS = """Customer,ASIN,When,Stars
ann,a1,2024-01-03,5
ann,b2,2024-01-01,4
ann,a1,2024-01-03,5
ann,a1,2024-01-05,3
bob,a1,2024-02-01,5
bob,b2,2024-02-02,5
bob,007,2024-02-02,1
-1,gone,2024-03-01,2
,b2,2024-03-02,2
"""
ITEMS = [
    {"asin": "a1", "title": "Tea <b>green</b>", "brand": ["Leafwell"], "review_count": 7, "image_url": "http"},
    {"asin": "b2", "title": "Cup", "brand": [], "review_count": 3, "image_url": "http"},
    {"asin": "b2", "title": "Cup again", "brand": [], "review_count": 3, "image_url": "http"},
    {"asin": "007", "title": "", "brand": [], "review_count": 1, "image_url": "http"},
    {"asin": "new", "title": "Cup", "brand": [], "review_count": 0, "image_url": "http"},
]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "rows.csv").write_text(ROWS, encoding="utf-8")
    (folder / "things.jsonl").write_text("\n".join(map(json.dumps, ITEMS)), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "finding",
    [
        "size interactions 8",
        "size users, the one with most interactions 3 ann (4)",
        "size users with fewer than 3 interactions, who only train 1 33.3% -1",
        "size users with fewer than 5 interactions 3 100.0% ann; bob; -1",
        "order distinct times 7 2024-01-01 to 2024-03-02",
        "order users whose rows are not in time order; they are sorted 1 33.3% ann",
        "! order interactions at the same time as another of the user, ordered at random 2 28.6% bob",
        "! order users whose last two interactions, validation and test, have the same time 1 33.3% bob",
        "! duplicates rows that repeat user, item and time, which are dropped 1 12.5% ann / a1",
        "duplicates rows that repeat user and item at another time, which stay (filter drop-repeats) 1 12.5% ann / a1",
        "! ids rows without user or item, which are dropped 1 11.1% row 9",
        "! ids users whose key often stands for none (1 rows) 1 33.3% -1",
        "! ids keys of items with leading zeros, which another program may have cut elsewhere 1 25.0% 007",
        "! ids keys of items that are numbers among words, or words among numbers 1 25.0% 007",
        "! ids items with interactions and without a text (1 rows) 1 25.0% gone",
        "ids items with a text and without interactions, which are left out 1 25.0% new",
        "! ids items whose key stands twice; the first counts 1 20.0% b2",
        "! texts items whose 'title' is empty 1 20.0% 007",
        "texts items whose 'brand' is empty 4 80.0% b2; 007; new",
        "! texts items without any text, which are called by their keys 1 20.0% 007",
        "! texts items whose whole text another has too: no text embedding can tell them apart 2 40.0% Cup",
        "texts items with HTML in their text, which is taken out 1 20.0% a1",
        "texts characters of the longest text; prompt.value_length cuts each value 18 a1: Tea green Leafwell",
        "texts columns that only the future knew, to be kept out of prompts 1 20.0% review_count",
    ],
)
def test_each_trouble_is_counted_with_an_example(command: Command, shop: Path, finding: str) -> None:
    said = command("data", "check", shop / "things.jsonl", shop / "rows.csv")
    assert said.code == 0, said.err
    assert finding in [" ".join(line.split()) for line in said.out.splitlines()], said.out


def test_clean_data_warn_of_nothing(command: Command, tmp_path: Path) -> None:
    users = [f"u{user}" for user in range(5) for _ in range(6)]
    items = [f"i{(user + step) % 8}" for user in range(5) for step in range(6)]
    frame = polars.DataFrame({"user_id": users, "item_id": items, "timestamp": list(range(30))})
    frame.write_parquet(tmp_path / "interactions.parquet")
    things = polars.DataFrame({"item_id": [f"i{item}" for item in range(8)], "title": [f"Thing {i}" for i in range(8)]})
    things.write_csv(tmp_path / "items.tsv", separator="\t")
    said = command("data", "check", tmp_path)
    assert said.code == 0, said.err
    assert ": 0 warn (!)" in said.out, said.out
    assert not [line for line in said.out.splitlines() if line.startswith("!")]


def test_the_settings_to_paste_read_the_files_as_they_were_checked(command: Command, shop: Path) -> None:
    said = command("data", "check", shop)
    settings = tomllib.loads(said.out.partition("For a recipe:")[2])["prepare"]["source"]
    assert {name: settings[name] for name in ("user", "item", "timestamp", "rating", "item_key", "attributes")} == {
        "user": "Customer",
        "item": "ASIN",
        "timestamp": "When",
        "rating": "Stars",
        "item_key": "asin",
        "attributes": ["brand"],
    }
    data = build("source", settings).read(Machine())  # type: ignore[attr-defined]
    assert data.frame.height == 7
    assert data.items["a1"] == {"title": "Tea green", "brand": ["Leafwell"]}
    raw = {"steps": ["prepare"], "prepare": {"source": settings}}
    assert from_raw(raw, "mine").steps["prepare"].spec()["source"]["user"] == "Customer"


def test_a_recipe_is_checked_with_its_own_settings(command: Command, shop: Path, tmp_path: Path) -> None:
    settings = command("data", "check", shop).out.partition("For a recipe:")[2]
    recipe = tmp_path / "mine.toml"
    settings = settings.replace('"brand"', '"review_count"')
    recipe.write_text(f'steps = ["prepare"]\n{settings}', encoding="utf-8")
    said = command("data", "check", recipe)
    assert "! texts columns that only the future knew, to be kept out of prompts" in " ".join(said.out.split())
    assert 'rating = "Stars"' in said.out


def test_columns_that_nothing_tells_can_be_named(command: Command, shop: Path) -> None:
    rows = shop / "rows.csv"
    rows.write_text(ROWS.replace("Customer", "Buyer"), encoding="utf-8")
    unknown = command("data", "check", shop)
    assert unknown.code == 2
    assert "both look like items; one file must have a column of users: name it with --column user=NAME" in unknown.err
    named = command("data", "check", shop, "--column", "user=Buyer")
    assert 'user = "Buyer"' in named.out


def test_one_file_is_enough_for_a_look(command: Command, shop: Path) -> None:
    only_rows = command("data", "check", shop / "rows.csv")
    assert only_rows.code == 0
    assert "A recipe also needs a file of items" in only_rows.out
    only_things = command("data", "check", shop / "things.jsonl")
    assert only_things.code == 0
    assert "A recipe also needs a file of interactions" in only_things.out
    assert "keys of items with leading zeros" in only_things.out


def test_times_that_cannot_be_read_are_a_warning_here(command: Command, shop: Path) -> None:
    (shop / "rows.csv").write_text(ROWS.replace("2024-02-02", "soon"), encoding="utf-8")
    said = command("data", "check", shop)
    assert said.code == 0, said.err
    assert "`run` would stop" in said.out
    assert "is not a time" in " ".join(said.out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.csv"], "there is no file absent.csv"),
        (["bad.parquet"], "bad.parquet is not a readable parquet"),
        (["absent.toml"], "there is no recipe absent.toml"),
        (["recipes/quickstart.toml"], "the source is not `table`"),
        (["empty"], "empty holds no file with one of the suffixes"),
        (["a.csv", "a.csv", "a.csv"], "name one file of interactions and one of items"),
        (["a.csv", "a.csv"], "both look like interactions"),
        (["a.csv", "--column", "usr=a"], "Did you mean 'user'?"),
        (["a.csv", "--column", "user"], "--column takes role=name"),
        (["a.csv", "--column", "item=sku"], "no column 'sku'"),
    ],
)
def test_what_cannot_be_checked_is_one_line_and_code_2(
    command: Command, tmp_path: Path, words: list[str], message: str
) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id\n1,2\n", encoding="utf-8")
    (tmp_path / "bad.parquet").write_text("no parquet", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    said = command("data", "check", *words)
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1


def test_columns_are_known_by_their_usual_names() -> None:
    assert guess(["reviewerID", "asin", "overall", "unixReviewTime"], "user") == "reviewerID"
    assert guess(["reviewerID", "asin", "overall", "unixReviewTime"], "timestamp") == "unixReviewTime"
    assert guess(["user_id:token", "item_id:token", "timestamp:float"], "item") == "item_id:token"
    assert guess(["asin", "parent_asin"], "item") == "parent_asin"
    assert guess(["a", "b"], "user") == ""
    columns = ["sku", "name", "city", "is_open", "Average Rating", "photo_id", "also_buy"]
    assert worth_a_prompt(columns, ["sku", "name"]) == ["city"]
