"""The table source reads what people have, and says in one line what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars
import pytest

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.interactions import Interactions, Removed
from reaemb_bench.data.sources.table import Table

NAMES = {
    "user": "who",
    "item": "What Was Bought",
    "timestamp": "when?",
    "rating": "stars",
    "item_key": "sku",
    "title": "näme",
}
ROWS = {
    "who": ["ann", "ann", "bob", "007", "ann"],
    "What Was Bought": ["a1", "b2", "a1", "c3", "a1"],
    "when?": [30, 10, 20, 5, 30],
    "stars": [4.5, 3.0, None, 1.0, 2.0],
}
ITEMS: list[dict[str, Any]] = [
    {
        "sku": "a1",
        "näme": "Tea; green",
        "tags": ["hot", ["loose", "leaf"]],
        "price": 3.0,
        "extra": {"size": "XL", "eco": True},
    },
    {"sku": "b2", "näme": "Cup", "tags": [], "price": None, "extra": None},
    {"sku": "a1", "näme": "again", "tags": ["no"], "price": 1.0, "extra": None},
]


def write(file: Path, columns: dict[str, list[Any]]) -> Path:
    frame = polars.DataFrame(columns, strict=False)
    match file.suffix:
        case ".csv":
            frame.write_csv(file)
        case ".tsv":
            frame.write_csv(file, separator="\t")
        case ".parquet":
            frame.write_parquet(file)
        case _:
            file.write_text("\n".join(json.dumps(row) for row in frame.to_dicts()) + "\n\n", encoding="utf-8")
    return file


def simple(folder: Path, suffix: str = ".csv", **settings: Any) -> Table:
    rows = write(folder / f"rows{suffix}", {"user_id": [1, 1, 2], "item_id": [7, 8, 7], "timestamp": [1, 2, 3]})
    items = write(folder / f"items{suffix}", {"item_id": [7, 8], "title": ["Tea", "Cup"]})
    return Table(**{"interactions": rows, "items": items, **settings})


def read(source: Table) -> Interactions:
    return source.read(Machine())


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_odd_names_in_every_format(tmp_path: Path, suffix: str) -> None:
    rows = write(tmp_path / f"rows{suffix}", ROWS)
    items = tmp_path / "items.jsonl"
    items.write_text("\n".join(json.dumps(item) for item in ITEMS), encoding="utf-8")
    data = read(Table(interactions=rows, items=items, attributes=("price", "näme", "tags", "extra"), **NAMES))
    assert data.name == tmp_path.name
    # The last row repeats user, item and time of the first; its rating is another, but it is the same purchase.
    assert data.frame.rows() == [
        ("ann", "a1", 30, 4.5),
        ("ann", "b2", 10, 3.0),
        ("bob", "a1", 20, None),
        ("007", "c3", 5, 1.0),
    ]
    assert data.removed == {
        "rows without user or item": Removed(),
        "repeated items": Removed(items=1),
        "exact duplicates": Removed(interactions=1),
    }
    assert data.items == {
        "a1": {"price": "3", "title": "Tea; green", "tags": ["hot", "loose, leaf"], "extra": ["size: XL", "eco: True"]},
        "b2": {"price": "", "title": "Cup", "tags": [], "extra": ""},
    }
    assert list(data.items["a1"]) == ["price", "title", "tags", "extra"]


def test_parquet_items_keep_lists_and_integer_keys(tmp_path: Path) -> None:
    rows = write(tmp_path / "r.csv", {"user_id": [1, 2], "item_id": [10, 9], "timestamp": [1, 2]})
    items = write(tmp_path / "i.pq", {"item_id": [9]})
    polars.DataFrame({"item_id": [9.0, 10.0], "title": ["x", None], "tags": [["p", "q"], None]}).write_parquet(items)
    data = read(Table(interactions=rows, items=items, attributes=("tags",)))
    assert data.items == {"9": {"title": "x", "tags": ["p", "q"]}, "10": {"title": "", "tags": ""}}


def test_quotes_may_be_text(tmp_path: Path) -> None:
    items = tmp_path / "i.tsv"
    items.write_text('item_id\ttitle\n7\t"Great" Tea\n8\t"Cup\n', encoding="utf-8")
    data = read(simple(tmp_path, items=items, quote=""))
    assert [item["title"] for item in data.items.values()] == ['"Great" Tea', '"Cup']


def test_file_order_stands_in_for_time(tmp_path: Path) -> None:
    assert read(simple(tmp_path, timestamp="")).frame["timestamp"].to_list() == [0, 1, 2]


@pytest.mark.parametrize(
    ("written", "ordered"),
    [
        (["2024-05-31", "2023-01-01", "2024-06-01"], [1, 0, 2]),
        (["2024-05-31 10:00:01", "2024-05-31 10:00:00", "2024-06-01 00:00:00"], [1, 0, 2]),
        (["3.25", "3.5", "1"], [2, 0, 1]),
        (["1e9", "1000000001.0", "999999999"], [2, 0, 1]),
    ],
)
def test_times_keep_their_order(tmp_path: Path, written: list[str], ordered: list[int]) -> None:
    rows = write(tmp_path / "r.csv", {"user_id": [1, 1, 1], "item_id": [7, 8, 7], "timestamp": written})
    frame = read(simple(tmp_path, interactions=rows)).frame
    assert frame["timestamp"].arg_sort().to_list() == ordered
    assert frame["timestamp"].n_unique() == 3


def test_rows_without_keys_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text("user_id,item_id,timestamp\n1,7,1\n,7,2\n1,  ,3\n2,8,4\n", encoding="utf-8")
    data = read(simple(tmp_path, interactions=file))
    assert data.frame.height == 2
    assert data.removed["rows without user or item"] == Removed(interactions=2)


def test_fingerprint_follows_content_and_survives_absence(tmp_path: Path) -> None:
    source = simple(tmp_path)
    before = source.fingerprint()
    assert set(before) == {"interactions_sha256", "items_sha256"}
    write(source.items, {"item_id": [7, 8], "title": ["Tea", "Mug"]})
    assert source.fingerprint() != before
    absent = simple(tmp_path, items=tmp_path / "none.csv")
    assert absent.fingerprint() == {"missing": str(tmp_path / "none.csv")}
    assert absent.identity()["missing"]


def test_identity_is_what_is_in_the_files_not_where_they_lie(tmp_path: Path) -> None:
    places = [tmp_path / "here" / "shop", tmp_path / "there" / "shop"]
    for place in places:
        place.mkdir(parents=True)
    here, there = (simple(place) for place in places)
    assert here.identity() == there.identity()
    assert here.identity() != simple(places[0], name="another").identity()
    assert here.identity() != simple(places[0], title="").identity()
    assert read(here).name == read(there).name == "shop"


def test_lists_are_no_keys(tmp_path: Path) -> None:
    rows = tmp_path / "r.parquet"
    polars.DataFrame({"user_id": [[1], [2]], "item_id": [7, 8], "timestamp": [1, 2]}).write_parquet(rows)
    with pytest.raises(UserError, match=r"column 'user_id'.* holds lists"):
        read(simple(tmp_path, interactions=rows))


def broken(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("settings", "files", "words"),
    [
        ({"user": "user"}, {}, ["rows.csv", "'user'", "source.user", "Did you mean 'user_id'?"]),
        ({"item": "itm_id"}, {}, ["rows.csv", "Did you mean 'item_id'?"]),
        ({"timestamp": "timestmp"}, {}, ["rows.csv", "source.timestamp", "Did you mean 'timestamp'?"]),
        ({"rating": "stars"}, {}, ["rows.csv", "source.rating", "user_id, item_id, timestamp"]),
        ({"item_key": "id"}, {}, ["items.csv", "source.item_key"]),
        ({"title": "titel"}, {}, ["items.csv", "source.title", "Did you mean 'title'?"]),
        ({"attributes": ("brand",)}, {}, ["items.csv", "source.attributes", "'brand'"]),
        ({"interactions": "absent.csv"}, {}, ["absent.csv", "no file"]),
        ({"items": "absent.csv"}, {}, ["absent.csv", "(setting items)"]),
        ({}, {"interactions": ("r.dat", "user_id\n1\n")}, ["r.dat", "interactions_format", "parquet"]),
        ({}, {"interactions": ("r.parquet", "no parquet")}, ["r.parquet", "not a readable parquet"]),
        ({}, {"interactions": ("r.csv", "user_id,item_id,timestamp\n")}, ["r.csv", "no rows"]),
        ({}, {"interactions": ("r.csv", "")}, ["r.csv", "not a readable csv"]),
        ({}, {"interactions": ("r.csv", "user_id;item_id\n1;2\n")}, ["r.csv", "Columns: user_id;item_id"]),
        (
            {},
            {"interactions": ("r.csv", "user_id,item_id,timestamp\n1,7,1,9,9\n")},
            ["r.csv", "line 2: 5 fields under 3"],
        ),
        (
            {},
            {"interactions": ("r.csv", 'user_id,item_id,timestamp\n1,7,1\n\n2,"7,1\n3,7,1\n')},
            ["line 5: unexpected end"],
        ),
        ({}, {"interactions": ("r.csv", "user_id,item_id,timestamp\n1,7,1\n1,8,soon\n")}, ["row 2", "'soon'", "time"]),
        ({}, {"interactions": ("r.csv", "user_id,item_id,timestamp\n1,7,\n1,8,2\n")}, ["row 1", "an empty cell"]),
        (
            {"rating": "timestamp", "timestamp": ""},
            {"interactions": ("r.csv", "user_id,item_id,timestamp\n1,7,x\n")},
            ["'x'", "a number"],
        ),
        ({}, {"items": ("i.jsonl", '{"item_id": 7, "title": "x"}\n{"item_id": 8,\n')}, ["i.jsonl, line 2", "JSON"]),
        ({}, {"items": ("i.jsonl", "[1, 2]\n")}, ["i.jsonl, line 1", "JSON object"]),
        ({}, {"items": ("i.csv", "item_id,title\nB01,x\n")}, ["no item of", "'7'", "'B01'", "source.item_key"]),
        ({"title": "item_id", "attributes": ("title",)}, {}, ["two titles"]),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, settings: dict[str, Any], files: dict[str, tuple[str, str]], words: list[str]
) -> None:
    source = simple(tmp_path)
    made = {setting: broken(tmp_path, *file) for setting, file in files.items()}
    with pytest.raises(UserError) as caught:
        read(Table(**{"interactions": source.interactions, "items": source.items, **settings, **made}))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_setting_is_named() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'timestamp'"):
        build("source", {"use": "table", "interactions": "a.csv", "items": "b.csv", "timestmp": "t"})


def test_dropped_column_means_none(tmp_path: Path) -> None:
    source = build("source", {"use": "table", "interactions": "a.csv", "items": "b.csv", "timestamp": None})
    assert source.spec()["timestamp"] == ""
