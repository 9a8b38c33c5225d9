"""Amazon reviews as published in 2023, 2018 and 2014: exactly what the miniatures hold, and nothing lost unseen."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.interactions import Removed
from reaemb_bench.data.prepare import Prepare
from reaemb_bench.data.sources.amazon import Amazon2014, Amazon2018, Amazon2023
from tests.helpers.sources import RAW, counted, read, texts

KITCHEN = {
    "reviews": RAW / "amazon_2023" / "Kitchen_Toys.jsonl",
    "metadata": RAW / "amazon_2023" / "meta_Kitchen_Toys.jsonl.gz",
}
INDUSTRIAL = {
    "reviews": RAW / "amazon_2018" / "Industrial_5.json",
    "metadata": RAW / "amazon_2018" / "meta_Industrial.json",
}
BEAUTY = {
    "reviews": RAW / "amazon_2014" / "reviews_Beauty.json",
    "metadata": RAW / "amazon_2014" / "meta_Beauty.json",
}
ANNA, BEN, CLEO = "AE22236AFRRSMQIKGG7TPTB75QEA", "AFKZENTNBQ7A7V7UXW5JJI6UGRYQ", "AGKASBHYZPGTEPO6LWZPVJWB2BVA"


def test_2023_holds_these_interactions() -> None:
    data = read("amazon-2023", **KITCHEN)
    assert data.name == "Kitchen_Toys"
    assert data.frame.rows() == [
        (ANNA, "B000TOAST1", 1588615855070, 5.0),
        (ANNA, "B000LAMP22", 1588615860070, 4.0),
        (BEN, "B000LAMP22", 1588615856070, 1.0),
        (BEN, "B000TOAST1", 1588615864070, 3.0),
        (ANNA, "B000TOAST1", 1588702255070, 2.0),
        (CLEO, "B000GHOST9", 1588615862070, 5.0),
        (CLEO, "B000TOAST1", 1588615863070, 5.0),
        (BEN, "B000CUP333", 1588615875070, 5.0),
        (CLEO, "B000CUP333", 1588615885070, None),
    ]
    assert data.time_unit == "ms"


def test_2023_holds_these_items() -> None:
    data = read("amazon-2023", **KITCHEN)
    assert data.items["B000TOAST1"] == {
        "title": "[Wooden] Toaster; for Kids & Co",
        "category": ["Toys & Games", "Pretend Play", "Kitchen Toys"],
        "price": "24.99",
        "store": "Bark & Board",
        "features": ["SAFE", "Pops up", "Two slices", "Recyclable"],
        "description": "A toaster that pops.",
    }
    assert texts(data) == {
        "B000TOAST1": "title is [Wooden] Toaster. for Kids & Co; category is Toys & Games, Pretend Play, Kitchen Toys; "
        "price is 24.99; store is Bark & Board; features is SAFE, Pops up, Two slices, Recyclable; "
        "description is A toaster that pops.",
        "B000LAMP22": "title is Night Lamp; category is Lighting; price is none; store is none; "
        "features is Dims to 0.5 lm; description is Glows at 2.5 watts for hours!",
        "B000CUP333": "title is Cup; category is Amazon Home; price is 8; store is none; features is none; "
        "description is No end of sentence",
    }


def test_2023_counts_what_it_leaves_out() -> None:
    assert counted(read("amazon-2023", **KITCHEN)) == {
        "malformed lines of Kitchen_Toys.jsonl (first: 8, 12, 13)": Removed(interactions=3),
        "reviews without user or item": Removed(interactions=1),
        "malformed lines of meta_Kitchen_Toys.jsonl.gz (first: 5)": Removed(items=1),
        "metadata of items without reviews": Removed(items=1),
        "repeated metadata": Removed(items=1),
        "items without metadata (they stay)": Removed(items=1),
        "exact duplicates": Removed(interactions=1),
    }


def test_2018_holds_these_interactions_items_and_counts() -> None:
    data = read("amazon-2018", **INDUSTRIAL)
    assert data.frame.rows() == [
        ("A2EFCYXHNK06IS", "5555991584", 978480000, 5.0),
        ("A1WR23ER5HMAA9", "5555991584", 953424000, 4.0),
        ("A2EFCYXHNK06IS", "B0002CUTER", 1526342400, 3.0),
        ("A1WR23ER5HMAA9", "B0002CUTER", 1526342400, 2.0),
        ("A3LOOKUP00000Z", "B000JUNK77", 1500000000, 5.0),
        ("A3LOOKUP00000Z", "5555991584", 1500000002, 1.0),
    ]
    assert data.time_unit == "s"
    assert texts(data) == {
        "5555991584": 'title is End Mill, 4"; category is Industrial & Scientific, Cutting Tools; '
        "price is $12.49 - $15.00; brand is Mill & Co; features is Carbide, 4 flutes; description is Cuts steel.",
        "B000JUNK77": "title is none; category is none; price is none; brand is none; features is none; "
        "description is One text.",
        "B0002CUTER": "title is Cutter; category is Industrial & Scientific; price is $3; brand is none; "
        "features is none; description is none",
    }
    assert counted(data) == {
        "malformed lines of Industrial_5.json (first: 5, 7, 9)": Removed(interactions=3),
        "metadata of items without reviews": Removed(items=1),
        "repeated metadata": Removed(items=1),
        "exact duplicates": Removed(interactions=1),
    }


def test_2014_holds_these_interactions_items_and_counts() -> None:
    data = read("amazon-2014", **BEAUTY)
    assert data.frame.rows() == [
        ("A1YJEY40YUW4SE", "7806397051", 1391040000, 1.0),
        ("A60XNB876KYML", "7806397051", 1397779200, 3.0),
        ("A60XNB876KYML", "B00BALM000", 1397779201, 4.0),
        ("A1YJEY40YUW4SE", "B00BALM000", 1391040000, 2.0),
        ("A9BARE00000000", "B00BARE000", 1400000000, 5.0),
    ]
    assert texts(data) == {
        "7806397051": "title is Makeup Palette; category is Beauty, Makeup, Face, Sets; price is 12.99; "
        "brand is Cosmetics; description is It's a palette.",
        "B00BALM000": "title is Lip Balm; category is Beauty; price is 3; brand is none; description is none",
        "B00BARE000": "title is none; category is Beauty; price is none; brand is none; description is none",
    }
    assert counted(data) == {
        "malformed lines of reviews_Beauty.json (first: 6)": Removed(interactions=1),
        "reviews without user or item": Removed(interactions=1),
        "malformed lines of meta_Beauty.json (first: 3, 7)": Removed(items=2),
        "metadata of items without reviews": Removed(items=1),
        "repeated metadata": Removed(items=1),
        "exact duplicates": Removed(interactions=1),
    }


@pytest.mark.parametrize(
    ("use", "files"), [("amazon-2023", KITCHEN), ("amazon-2018", INDUSTRIAL), ("amazon-2014", BEAUTY)]
)
def test_every_item_has_the_same_attributes_and_the_terms_are_told(use: str, files: dict[str, Path]) -> None:
    data = read(use, **files)
    assert {tuple(attributes) for attributes in data.items.values()} == {data.attribute_names}
    assert data.attribute_names[0] == "title"
    assert data.about.home.startswith("https://")
    assert data.about.licence
    assert data.about.citation


def test_packed_files_give_the_same(tmp_path: Path) -> None:
    for name, file in INDUSTRIAL.items():
        (tmp_path / f"{name}.json.gz").write_bytes(gzip.compress(file.read_bytes()))
    data = read("amazon-2018", **INDUSTRIAL)
    packed = read(
        "amazon-2018", reviews=tmp_path / "reviews.json.gz", metadata=tmp_path / "metadata.json.gz", name=data.name
    )
    assert packed.frame.equals(data.frame)
    assert packed.items == data.items


def test_malformed_lines_beyond_the_limit_are_an_error() -> None:
    assert len(read("amazon-2023", **KITCHEN, malformed_limit=3).frame) == 9
    told = r"Kitchen_Toys\.jsonl: more than 2 malformed lines \(lines 8, 12, 13; line 13: 'timestamp' is not a time"
    with pytest.raises(UserError, match=told):
        read("amazon-2023", **KITCHEN, malformed_limit=2)


def test_the_form_of_another_year_is_told_by_its_first_missing_field(tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    many.write_bytes(KITCHEN["reviews"].read_bytes() * 20)
    with pytest.raises(UserError, match=r"line \d+: no 'reviewerID'"):
        read("amazon-2018", reviews=many, metadata=KITCHEN["metadata"])


def test_two_files_that_do_not_belong_together_are_an_error() -> None:
    with pytest.raises(UserError, match=r"no item of .*Kitchen_Toys\.jsonl \(field 'parent_asin', such as 'B0"):
        read("amazon-2023", reviews=KITCHEN["reviews"], metadata=INDUSTRIAL["metadata"])


def test_a_file_without_named_reviews_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "nobody.json"
    file.write_text(json.dumps({"reviewerID": "", "asin": "a", "unixReviewTime": 1}))
    with pytest.raises(UserError, match="has no review with 'reviewerID' and 'asin'"):
        read("amazon-2014", reviews=file, metadata=BEAUTY["metadata"])


def test_the_same_files_elsewhere_are_the_same_data_and_other_files_are_not(tmp_path: Path) -> None:
    for file in KITCHEN.values():
        shutil.copy(file, tmp_path)
    here = Amazon2023(**KITCHEN)
    there = Amazon2023(reviews=tmp_path / KITCHEN["reviews"].name, metadata=tmp_path / KITCHEN["metadata"].name)
    assert here.identity() == there.identity()
    with there.reviews.open("a") as stream:
        stream.write("\n")
    assert here.identity() != there.identity()
    assert Amazon2018(**INDUSTRIAL, name="x").identity() != Amazon2018(**INDUSTRIAL).identity()
    absent = Amazon2014(reviews=tmp_path / "absent.json", metadata=BEAUTY["metadata"])
    assert absent.identity()["missing"] == str(tmp_path / "absent.json")


def test_prepare_tells_the_user_what_was_left_out() -> None:
    source = {"use": "amazon-2023", **KITCHEN}
    step = build("step", {"use": "prepare", "source": source, "sampled_candidates": 1})
    assert isinstance(step, Prepare)
    facts: dict[str, float | int | str] = {}
    corpus, _, test_targets = step.run(Context(1, Machine(), lambda tick: None, facts.update, Path()))
    assert (corpus.users, corpus.items, len(test_targets.users)) == (3, 4, 3)
    assert corpus.item_keys == ("B000CUP333", "B000GHOST9", "B000LAMP22", "B000TOAST1")
    assert facts["items_without_text"] == 1
    assert "3 interactions" in str(facts["removed: malformed lines of Kitchen_Toys.jsonl (first: 8, 12, 13)"])
