"""Attributes come out as readable text from any notation of a file, and files are opened by their names."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars
import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.registry import build
from reaemb_bench.data.text import readable
from tests.helpers.sources import RAW, read

READABLE: list[tuple[object, str | list[str]]] = [
    (None, ""),
    (float("nan"), ""),
    (3.0, "3"),
    (19.99, "19.99"),
    (0.00001, "0.00001"),
    (Decimal("3.50"), "3.50"),
    (True, "True"),
    (b"caf\xc3\xa9", "café"),
    ("Salt &amp; Pepper", "Salt & Pepper"),
    ("<p>One</p><p>Two</p>", "One Two"),
    ("3 < 5 & 7 > 2", "3 < 5 & 7 > 2"),
    ("two\nlines", "two lines"),
    ([], []),
    (["a &lt; b", None, "", 2.0], ["a < b", "2"]),
    ([["a", "b"], {"c": 1}], ["a, b", "c: 1"]),
    ({"size": "XL", "none": None, "empty": []}, ["size: XL"]),
    ({"outer": {"inner": [1, 2]}}, ["outer: inner: 1, 2"]),
    ('["a", "b &amp; c"]', ["a", "b & c"]),
    ("['a', \"b's\"]", ["a", "b's"]),
    ("{'amount': 3.5, 'currency': 'EUR'}", ["amount: 3.5", "currency: EUR"]),
    ('{"lot": true}', ["lot: True"]),
    ("[solidcore]", "[solidcore]"),
    ("{curly} braces", "{curly} braces"),
    ("[1, __import__('os')]", "[1, __import__('os')]"),
]


@pytest.mark.parametrize(("value", "text"), READABLE)
def test_any_value_reads_as_text(value: object, text: str | list[str]) -> None:
    assert readable(value) == text


NOTED: dict[str, Any] = {
    "title": "Salt &amp; Pepper",
    "tags": "['hot', 'loose &lt; leaf']",
    "size": {"cm": 3.0, "set": ["a", "b"]},
    "price": {"amount": 3.5, "currency": "EUR"},
}
WANTED = {
    "title": "Salt & Pepper",
    "tags": ["hot", "loose < leaf"],
    "size": ["cm: 3", "set: a, b"],
    "price": ["amount: 3.5", "currency: EUR"],
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_tables_show_no_notation(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,7,1\n", encoding="utf-8")
    items = tmp_path / f"items{suffix}"
    row = {"item_id": "7", **NOTED}
    if suffix == ".jsonl":
        items.write_text(json.dumps(row), encoding="utf-8")
    elif suffix == ".parquet":
        polars.DataFrame([row]).write_parquet(items)
    else:
        polars.DataFrame(
            [{name: value if isinstance(value, str) else str(value) for name, value in row.items()}]
        ).write_csv(items)
    data = read("table", interactions=tmp_path / "rows.csv", items=items, attributes=("tags", "size", "price"))
    assert data.items["7"] == WANTED


def test_a_title_in_brackets_stays_a_title(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,7,1\n", encoding="utf-8")
    (tmp_path / "items.jsonl").write_text('{"item_id": 7, "title": "[1408]"}', encoding="utf-8")
    data = read("table", interactions=tmp_path / "rows.csv", items=tmp_path / "items.jsonl")
    assert data.items["7"] == {"title": "[1408]"}


def test_atomic_files_show_no_notation(tmp_path: Path) -> None:
    (tmp_path / "a.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\nu\ti\t1\n")
    (tmp_path / "a.item").write_text(
        "item_id:token\ttitle:token_seq\tsize:token\ttags:token_seq\ni\tSalt &amp; Pepper\t{'cm': 3}\ta&amp;b c\n"
    )
    data = read("recbole-atomic", path=tmp_path, attributes=("size", "tags"))
    assert data.items["i"] == {"title": "Salt & Pepper", "size": ["cm: 3"], "tags": ["a&b", "c"]}


REVIEWS = {
    "amazon-2023": ({"user_id": "u", "parent_asin": "a", "timestamp": 10**12}, "parent_asin"),
    "amazon-2018": ({"reviewerID": "u", "asin": "a", "unixReviewTime": 10**9}, "asin"),
    "amazon-2014": ({"reviewerID": "u", "asin": "a", "unixReviewTime": 10**9}, "asin"),
    "yelp": ({"user_id": "u", "business_id": "a", "date": "2018-07-07 22:09:11"}, "business_id"),
    "goodreads": ({"user_id": "u", "book_id": "a", "date_added": "Fri Nov 10 15:06:07 -0800 2017"}, "book_id"),
}


def of_reviews(use: str, folder: Path, count: int = 1, **item: Any) -> dict[str, Any]:
    """The attributes of item `a` among others."""
    review, key = REVIEWS[use]
    (folder / "r.json").write_text(json.dumps(review) + "\n", encoding="utf-8")
    others = [{key: f"x{number}", "title": "x"} for number in range(count)]
    lines = [json.dumps(line) for line in [*others, {key: "a", **item}, *others]]
    (folder / "m.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = read(use, reviews=folder / "r.json", metadata=folder / "m.json", malformed_limit=0)
    return dict(data.items["a"])


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("use", ["amazon-2014", "amazon-2018", "amazon-2023"])
def test_amazon_shows_no_notation_and_loses_no_item_to_it(use: str, count: int, tmp_path: Path) -> None:
    kind = {"amazon-2023": "features", "amazon-2018": "feature", "amazon-2014": "categories"}[use]
    brand = "store" if use == "amazon-2023" else "brand"
    item = {"title": "Salt &amp; Pepper", "price": NOTED["price"], brand: ["Leaf", "Co"], kind: {"cm": 3}}
    read_item = of_reviews(use, tmp_path, count, **item, description=["Fine. More", {"x": 1}])
    assert read_item["title"] == "Salt & Pepper"
    assert read_item["price"] == "amount: 3.5, currency: EUR"
    assert read_item[brand] == "Leaf, Co"
    assert ["cm: 3"] in read_item.values()
    assert read_item["description"] == "Fine."


@pytest.mark.parametrize("count", [1, 40])
def test_yelp_and_goodreads_show_no_notation(count: int, tmp_path: Path) -> None:
    shop = {"name": "Salt &amp; Pepper", "address": ["1 Road", "2nd &lt; 3rd"], "hours": {"Mon": "7-8"}}
    yelp = of_reviews("yelp", tmp_path, count, **shop)
    assert (yelp["title"], yelp["address"]) == ("Salt & Pepper", ["1 Road", "2nd < 3rd"])
    assert yelp["hours"] == ["Mon: 7-8"]
    tale = {"title": "Salt &amp; Pepper", "publisher": {"name": "House"}, "description": "<b>A</b> tale"}
    book = of_reviews("goodreads", tmp_path, count, **tale)
    assert (book["title"], book["publisher"], book["description"]) == ("Salt & Pepper", "name: House", "A tale")


def test_movielens_and_the_authors_files_show_no_entities(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("1::Salt &amp; Pepper (1999)::Drama\n", encoding="latin-1")
    (tmp_path / "ratings.dat").write_text("1::1::4::978300760\n")
    assert read("movielens-1m", path=tmp_path).items["1"]["title"] == "Salt & Pepper"
    (tmp_path / "inter.txt").write_text("1 1\n")
    (tmp_path / "items.jsonline").write_text(json.dumps({"input": "Said: \n title is Salt &amp; Pepper", "item_id": 1}))
    data = read("reaemb-authors", interactions=tmp_path / "inter.txt", items=tmp_path / "items.jsonline")
    assert data.items["1"]["title"] == "Salt & Pepper"


@pytest.mark.parametrize("use", [*REVIEWS, "table"])
def test_half_a_surrogate_pair_is_one_malformed_line_and_not_a_traceback(use: str, tmp_path: Path) -> None:
    bad = '{"item_id": "7", "title": "\\ud83d"}'
    if use == "table":
        (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\nu,7,1\n", encoding="utf-8")
        (tmp_path / "items.jsonl").write_text(f"{bad}\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"items\.jsonl, line 1: .ud83d is half of a surrogate pair"):
            read("table", interactions=tmp_path / "rows.csv", items=tmp_path / "items.jsonl")
        return
    review, key = REVIEWS[use]
    (tmp_path / "r.json").write_text(json.dumps(review), encoding="utf-8")
    lines = [json.dumps({key: "a", "title": "x"}), bad.replace("item_id", key)]
    (tmp_path / "m.json").write_text("\n".join(lines), encoding="utf-8")
    data = read(use, reviews=tmp_path / "r.json", metadata=tmp_path / "m.json")
    assert data.removed["malformed lines of m.json (first: 2)"].items == 1


@pytest.mark.parametrize("use", REVIEWS)
def test_broken_lines_are_named_where_they_may_be_why_nothing_meets(use: str, tmp_path: Path) -> None:
    review, key = REVIEWS[use]
    (tmp_path / "r.json").write_text(json.dumps(review), encoding="utf-8")
    (tmp_path / "m.json").write_text("\n".join(['{"broken', json.dumps({key: "other"}), "{"]), encoding="utf-8")
    with pytest.raises(UserError, match=r"\(2 of its lines are malformed, first: 1, 3\); take two files"):
        read(use, reviews=tmp_path / "r.json", metadata=tmp_path / "m.json")


NAMES = ["rows [1]", "st*r", "what?", "{a,b}", "täste ☕", "with space", "#hash%20", "~tilde", "-dash", "a;b'c\"d"]


FILES: dict[str, dict[str, Any]] = {
    "yelp": {
        "reviews": RAW / "yelp" / "yelp_academic_dataset_review.json",
        "metadata": RAW / "yelp" / "yelp_academic_dataset_business.json",
    },
    "amazon-2023": {
        "reviews": RAW / "amazon_2023" / "Kitchen_Toys.jsonl",
        "metadata": RAW / "amazon_2023" / "meta_Kitchen_Toys.jsonl.gz",
    },
    "reaemb-authors": {"interactions": RAW / "authors/inter.txt", "items": RAW / "authors/item_info.jsonline"},
    "movielens-1m": {"path": RAW / "movielens_1m"},
    "movielens-20m": {"path": RAW / "movielens_20m"},
    "recbole-atomic": {"path": RAW / "recbole" / "shop"},
}


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("use", FILES)
def test_every_source_opens_files_by_their_names(use: str, name: str, link: bool, tmp_path: Path) -> None:
    settings = FILES[use] | ({} if "path" in FILES[use] else {"name": "n"})
    plain = read(use, **settings)
    moved: dict[str, Any] = {}
    for setting, place in FILES[use].items():
        there = tmp_path / name / (place.name if setting == "path" else name + setting)
        there.parent.mkdir(exist_ok=True)
        if link:
            there.symlink_to(place)
        elif place.is_dir():
            shutil.copytree(place, there)
        else:
            shutil.copy(place, there)
        moved[setting] = there
    data = read(use, **{**settings, **moved})
    assert data.frame.equals(plain.frame)
    assert data.items == plain.items
    here, there = (build("source", {"use": use, **places}).fingerprint() for places in (settings, moved))
    assert there == here
    assert "missing" not in here


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
@pytest.mark.parametrize(("name", "decoy"), [("rows [1]", "rows 1"), ("q*", "qq"), ("w?", "wx"), ("täste ☕", "t")])
def test_a_table_is_the_file_of_that_name_and_not_one_that_a_pattern_matches(
    suffix: str, name: str, decoy: str, tmp_path: Path
) -> None:
    def write(file: Path, frame: polars.DataFrame) -> Path:
        with file.open("wb") as stream:
            match suffix:
                case ".parquet":
                    frame.write_parquet(stream)
                case ".jsonl":
                    frame.write_ndjson(stream)
                case _:
                    frame.write_csv(stream, separator="\t" if suffix == ".tsv" else ",")
        return file

    right = polars.DataFrame({"user_id": ["right"], "item_id": ["7"], "timestamp": [1]})
    write(tmp_path / f"{decoy}{suffix}", right.with_columns(user_id=polars.lit("decoy")))
    rows = write(tmp_path / f"{name}{suffix}", right)
    items = write(tmp_path / f"items{name}{suffix}", polars.DataFrame({"item_id": ["7"], "title": ["Tea"]}))
    data = read("table", interactions=rows, items=items)
    assert data.frame["user"].to_list() == ["right"]
    assert data.items == {"7": {"title": "Tea"}}
