"""The UCSD Book Graph from a miniature in its published format, sound, odd and broken lines among them."""

from __future__ import annotations

import gzip
import json
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.filters import MinimumRating
from reaemb_bench.data.interactions import Interactions, Removed
from reaemb_bench.data.sources.goodreads import Goodreads

RAW = Path(__file__).parents[1] / "fixtures" / "raw" / "goodreads"
FILES = {
    "reviews": RAW / "goodreads_interactions_tales.json",
    "metadata": RAW / "goodreads_books_tales.json",
    "authors": RAW / "goodreads_book_authors.json",
}
ANN, BEN, CAT = (
    "0f4e5a7c91d8b3a2e6c05d7f18293a4b",
    "7b21c0d4e9f83a65b4c2d10e8f7a6b59",
    "c3d9e8f70a1b2c4d5e6f708192a3b4c5",
)


def read(**settings: Any) -> Interactions:
    return Goodreads(**{**FILES, **settings}).read(Machine())


def test_shelved_books_are_read_as_they_are_published() -> None:
    data = read()
    assert data.name == "goodreads_interactions_tales"
    assert data.frame.rows() == [
        (ANN, "101", 1510355167, 5.0),
        (ANN, "102", 1510355168, None),
        (ANN, "103", 1393744500, 3.0),
        (BEN, "101", 1330534800, 4.0),
        (BEN, "104", 1330621200, 2.0),
        # No line of the books tells of 199; it counts all the same.
        (BEN, "199", 1330707600, 1.0),
        (CAT, "103", 1330794001, None),
        (CAT, "102", 1330794004, 4.0),
    ]
    names = ("title", "authors", "series", "publisher", "publication_year", "shelves", "description")
    lamp = "A lamp that never goes out; a village that wants to know why. With maps."
    shelves = ["fairy-tales", "owned", "picture-books"]
    illustrated = ["Ida Brandt", "Tomás Rey"]
    books = {
        "101": ("The Salt Lamp (Coast Tales, #1)", illustrated, ["5001"], "Harbour House", "1998", shelves, lamp),
        "102": ("Été", ["Zoë Lund"], [], "", "2004", [], ""),
        "103": ("No Author At All", [], ["5001", "5002"], "North & Sons", "", [], ""),
        "104": ("Shelves Of Another Kind", ["9004"], [], "", "", [], "Odd, and read all the same."),
    }
    assert data.items == {key: dict(zip(names, book, strict=True)) for key, book in books.items()}
    assert data.removed == {
        "malformed lines of goodreads_interactions_tales.json (first: 6, 7, 8, 12, 13)": Removed(interactions=6),
        "reviews without user or item": Removed(interactions=1),
        "malformed lines of goodreads_books_tales.json (first: 4, 8)": Removed(items=2),
        "metadata of items without reviews": Removed(items=1),
        "repeated metadata": Removed(items=1),
        "items without metadata (they stay)": Removed(items=1),
        "exact duplicates": Removed(interactions=1),
        "malformed lines of goodreads_book_authors.json (first: 4)": Removed(items=1),
    }
    assert data.instruction == "The book has the following attributes:"
    assert data.about == Goodreads.about
    assert "RecSys 2018" in data.about.citation


def test_authors_without_names_are_numbers_and_shelves_have_a_limit() -> None:
    items = read(authors=None, shelves=2).items
    assert items["101"]["authors"] == ["9001", "9002"]
    assert items["101"]["shelves"] == ["fairy-tales", "owned"]
    assert read(shelves=0).items["101"]["shelves"] == []


def test_a_minimum_rating_leaves_the_rated_books() -> None:
    kept = MinimumRating(minimum=1.0).apply(read())
    assert kept.frame.select("user", "item").rows() == [
        (ANN, "101"),
        (ANN, "103"),
        (BEN, "101"),
        (BEN, "104"),
        (BEN, "199"),
        (CAT, "102"),
    ]


def test_dates_of_many_lines_keep_their_zones(tmp_path: Path) -> None:
    moments = [
        datetime(2007, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=hours))) + timedelta(days=31 * place, seconds=place)
        for place in range(60)
        for hours in (-8, -7, 0, 5)
    ]
    lines = [
        {"user_id": "u", "book_id": "101", "rating": 1, "date_added": moment.strftime("%a %b %d %H:%M:%S %z %Y")}
        for moment in moments
    ]
    file = tmp_path / "goodreads_interactions_many.json.gz"
    file.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in lines).encode()))
    data = read(reviews=file)
    assert data.name == "goodreads_interactions_many"
    assert data.frame["timestamp"].to_list() == [int(moment.timestamp()) for moment in moments]


def test_identity_follows_contents_and_not_the_place(tmp_path: Path) -> None:
    moved = Path(shutil.copytree(RAW, tmp_path / "elsewhere"))
    there = {setting: moved / file.name for setting, file in FILES.items()}
    assert Goodreads(**there).identity() == Goodreads(**FILES).identity()
    assert Goodreads(**{**there, "authors": None}).identity() != Goodreads(**FILES).identity()
    with there["authors"].open("a", encoding="utf-8") as file:
        file.write('{"author_id": "9004", "name": "Ola"}\n')
    assert Goodreads(**there).identity() != Goodreads(**FILES).identity()
    assert read(**there).items["104"]["authors"] == ["Ola"]
    there["authors"].unlink()
    assert Goodreads(**there).fingerprint() == {"missing": str(there["authors"])}


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (0, ["goodreads_book_authors.json: more than 0 malformed lines", "line 4: no 'name'"]),
        (
            1,
            [
                "goodreads_interactions_tales.json: more than 1 malformed lines (lines 6, 7",
                "'date_added' is not a date",
            ],
        ),
        (5, ["lines 6, 7, 8, 12, 13; line 15: no 'book_id'", "raise malformed_limit"]),
    ],
)
def test_more_malformed_lines_than_tolerated_are_one_line(limit: int, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read(malformed_limit=limit)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
