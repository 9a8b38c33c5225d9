"""Atomic files from a miniature in RecBole's format: types from the header, broken lines counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import Interactions, Removed
from reaemb_bench.data.sources.recbole import Atomic

SHOP = Path(__file__).parents[1] / "fixtures" / "raw" / "recbole" / "shop"
ATTRIBUTES = ("categories", "price", "brand", "sizes", "description")
INTER = "user_id:token\titem_id:token\ttimestamp:float\n"
ITEM = "item_id:token\ttitle:token_seq\n"


def read(**settings: Any) -> Interactions:
    return Atomic(**{"path": SHOP, **settings}).read(Machine())


def pair(folder: Path, inter: str, item: str = f"{ITEM}i\tTea\n", name: str = "made") -> Path:
    (folder / f"{name}.item").write_text(item, encoding="utf-8")
    (folder / f"{name}.inter").write_text(inter, encoding="utf-8")
    return folder / f"{name}.inter"


def test_a_pair_is_read_by_the_types_of_its_headers() -> None:
    data = read(rating="rating", attributes=ATTRIBUTES, texts=("description",))
    assert data.name == "shop"
    assert data.frame.rows() == [
        ("u1", "i1", 1418774400, 5.0),
        ("u1", "i2", 1418774500, 3.0),
        ("u1", "i3", 1418774600, 4.0),
        ("u2", "i1", 1418774700, None),
        ("u2", "i2", 1418774800, 5.0),
        # No line of shop.item tells of i9; it counts all the same.
        ("u2", "i9", 1418774900, 2.0),
        ("u3", "i3", 1418775100, 1.0),
        ("u3", "i4", 1418775200, 2.5),
        ("u4", "i4", 1418775400, 3.5),
    ]
    values = {
        "i1": ("Green tea", ["Grocery", "Tea", "Loose"], "3.5", "Leaf & Co", ["100", "250.5"], "Fresh, and green."),
        "i2": ('12" plate', ["Kitchen"], "12", "", ["30"], ""),
        "i3": ("Cup", [], "", "Potters", [], "White; holds 0.2 litres"),
        "i7": ("Never bought", ["Tea"], "7.25", "Leaf & Co", ["1", "2", "3"], "Waits"),
    }
    assert data.items == {key: dict(zip(("title", *ATTRIBUTES), row, strict=True)) for key, row in values.items()}
    assert data.removed == {
        "malformed lines of shop.inter (first: 6, 9, 10, 11, 12)": Removed(interactions=7),
        "malformed lines of shop.item (first: 5, 6, 7, 8, 11)": Removed(items=5),
        "repeated items": Removed(items=1),
        "exact duplicates": Removed(interactions=1),
    }
    assert data.about == Atomic.about
    assert "RecBole" in data.about.citation


def test_columns_have_the_names_that_they_have(tmp_path: Path) -> None:
    file = pair(
        tmp_path,
        "when:float\tsession:token\tstars:float\ttrack:token\n1.25\ts\t4\tt1\n1.5\ts\t\tt2\n",
        "name:token_seq\ttrack:token\ttags:token_seq\nSlow Song\tt1\tcalm|late night\n",
    )
    names = {"user": "session", "item": "track", "timestamp": "when", "rating": "stars", "title": "name"}
    data = read(path=file, attributes=("tags", "name"), sequence_separator="|", **names)
    # Fractions of a second keep their order in milliseconds.
    assert data.frame.rows() == [("s", "t1", 1250, 4.0), ("s", "t2", 1500, None)]
    assert data.items == {"t1": {"tags": ["calm", "late night"], "title": "Slow Song"}}


def test_the_order_of_the_file_stands_in_for_time(tmp_path: Path) -> None:
    file = pair(tmp_path, "user_id:token\titem_id:token\nu\ti\nu\tj\n")
    assert read(path=file, timestamp="", title="").frame.rows() == [("u", "i", 0, None), ("u", "j", 1, None)]


def test_a_folder_and_its_file_are_the_same_data_wherever_they_lie(tmp_path: Path) -> None:
    moved = Path(shutil.copytree(SHOP, tmp_path / "elsewhere"))
    here = Atomic(path=SHOP)
    assert Atomic(path=SHOP / "shop.inter").identity() == here.identity()
    assert Atomic(path=moved).identity() == here.identity()
    assert Atomic(path=moved, name="other").identity() != here.identity()
    (moved / "shop.item").unlink()
    assert Atomic(path=moved).fingerprint() == {"missing": str(moved / "shop.item")}
    (moved / "shop.inter").unlink()
    assert Atomic(path=moved).fingerprint() == {"missing": str(moved / "elsewhere.inter")}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"malformed_limit": 5}, ["shop.inter: more than 5 malformed lines", "line 18: not in UTF-8"]),
        ({"malformed_limit": 0, "rating": "rating"}, ["line 6: 'rating' is not a number", "malformed_limit"]),
        ({"user": "user"}, ["shop.inter", "source.user", "Did you mean 'user_id'?"]),
        ({"timestamp": "timestmp"}, ["source.timestamp", "Did you mean 'timestamp'?"]),
        ({"item": "note"}, ["'note' (setting source.item) is of type token_seq and not token"]),
        ({"rating": "item_id"}, ["source.rating", "of type token and not float"]),
        ({"title": "name"}, ["shop.item", "source.title", "Columns: item_id, title"]),
        ({"attributes": ("colour",)}, ["shop.item", "source.attributes", "'colour'"]),
        ({"title": "brand", "attributes": ("title",)}, ["source.attributes", "'title'", "source.title"]),
        ({"path": "absent.inter"}, ["no file absent.inter", "source.path"]),
        ({"path": "absent"}, ["no file absent", "NAME.inter"]),
    ],
)
def test_mistakes_in_settings_are_one_line(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read(**settings)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("inter", "word"),
    [
        ("user_id\titem_id\ttimestamp\nu\ti\t1\n", "'user_id' is not a column with a type, such as user_id:token"),
        (INTER.replace("float", "integer"), "'timestamp:integer' is not a column with a type"),
        (INTER.replace("item_id", "user_id"), "'user_id:token' is not a column with a type"),
        (INTER.replace("\t", ","), "tabs stand between columns"),
        ("", "line 1: '' is not a column with a type"),
    ],
)
def test_a_header_that_is_none_is_one_line(inter: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(path=pair(tmp_path, inter))
    assert word in str(caught.value)
    assert "made.inter, line 1" in str(caught.value)


def test_items_have_a_limit_and_a_folder_has_one_pair(tmp_path: Path) -> None:
    pair(tmp_path, f"{INTER}u\ti\t1\n", f"{ITEM}i\tTea\textra\n")
    with pytest.raises(UserError, match=r"made\.item: more than 0 malformed lines \(lines 2; line 2: more fields than"):
        read(path=tmp_path, malformed_limit=0)
    pair(tmp_path, INTER, name="second")
    with pytest.raises(UserError, match=r"several interaction files \(made\.inter, second\.inter\)"):
        Atomic(path=tmp_path).identity()
