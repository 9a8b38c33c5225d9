"""The UCSD Book Graph: what readers of Goodreads put on their shelves, with dates to the second."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import polars
from pydantic import Field as Setting
from pydantic import model_validator

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.lines import BadLines, Field, read_json_lines
from reaemb_bench.data.published import PublishedFile
from reaemb_bench.data.sources.reviews import LAB, Line, ReviewFiles, read_reviews
from reaemb_bench.data.text import one_text, plain_text

_ANYTHING = ("authors", "publisher", "publication_year", "popular_shelves", "description")
_OF_EVERY_READER = ("to-read", "currently-reading", "read")
"""Shelves that say nothing about a book."""
Genre = Literal[
    "children",
    "comics_graphic",
    "fantasy_paranormal",
    "history_biography",
    "mystery_thriller_crime",
    "poetry",
    "romance",
    "young_adult",
]


class Goodreads(ReviewFiles):
    """The UCSD Book Graph: a genre by its name, or its two files.

    These are `goodreads_interactions_<genre>.json.gz` and `goodreads_books_<genre>.json.gz`. Every shelved book is an
    interaction at its date_added, read or not. A rating of 0 means none, so that the filter `rating` with a minimum of
    1 keeps the rated ones. Attributes: title, authors, series (numbers), publisher, publication_year, shelves and
    description.
    """

    about: ClassVar[About] = About(
        "https://mengtingwan.github.io/data/goodreads.html",
        "academic use only, no redistribution, no commercial use",
        "Mengting Wan, Julian McAuley, Item Recommendation on Monotonic Behavior Chains, RecSys 2018; "
        "Mengting Wan, Rishabh Misra, Ndapa Nakashole, Julian McAuley, Fine-Grained Spoiler Detection from "
        "Large-Scale Review Corpora, ACL 2019",
        download="by genre",
        minutes="4 a GB",
    )

    genre: Genre | None = None
    """Genre whose files are downloaded; without it give `reviews` and `metadata`."""
    authors: Path | None = None
    """File `goodreads_book_authors.json.gz` with the authors' names; without it and without a genre, which brings it,
    authors are numbers."""
    shelves: int = Setting(default=10, ge=0)
    """Names of popular shelves to keep, the most used first. Their counts are left out, being of the day of
    publication, and so are to-read, currently-reading and read; 0 keeps none."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if not self.genre and not (self.reviews and self.metadata):
            raise ValueError('name a genre, as in genre = "poetry", or give both reviews and metadata')
        return self

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return super().data_name if self.name or self.reviews else f"goodreads-{self.genre}"

    def identity(self) -> dict[str, Any]:
        """Contents alone: the genre chooses files, of which the fingerprint holds what they are."""
        return {**super().identity(), "genre": ""}

    def published(self) -> Mapping[str, PublishedFile]:
        """The genre's files, without those that settings name."""
        names = {
            "reviews": f"byGenre/goodreads_interactions_{self.genre}",
            "metadata": f"byGenre/goodreads_books_{self.genre}",
            "authors": "goodreads_book_authors",
        }
        return {
            held: PublishedFile(tuple(f"{home}/gdrive/goodreads/{name}.json.gz" for home in LAB))
            for held, name in names.items()
            if self.genre and getattr(self, held) is None
        }

    def read(self, machine: Machine) -> Interactions:
        """Returns all interactions and their books. Raises UserError naming file, lines and cure."""
        names: dict[str, str] = {}
        removed = {}
        files = self.fetch(machine)
        if "authors" in files:
            bad = BadLines(files["authors"], self.malformed_limit)
            fields = {"author_id": Field("text", required=True), "name": Field("text", required=True)}
            for frame in read_json_lines(files["authors"], fields, bad):
                names.update(frame.iter_rows())
            removed = bad.removed("items")

        def attributes(line: Line) -> Attributes:
            authors = _named(line["authors"], "author_id")
            shelves = [name for name in _named(line["popular_shelves"], "name") if name not in _OF_EVERY_READER]
            return {
                "title": plain_text(line["title"]),
                "authors": [plain_text(names.get(author, author)) for author in authors],
                "series": [*map(one_text, line["series"] or ())],
                "publisher": one_text(line["publisher"]),
                "publication_year": one_text(line["publication_year"]),
                "shelves": shelves[: self.shelves],
                "description": plain_text(line["description"]),
            }

        data = read_reviews(
            self,
            files,
            ("user_id", "book_id", "date_added", "rating"),
            Field("date", required=True, form="%a %b %d %H:%M:%S %z %Y"),
            {"title": Field("text"), "series": Field("parts"), **dict.fromkeys(_ANYTHING, Field("json"))},
            attributes,
            "The book has the following attributes:",
        )
        rating = polars.when(polars.col("rating") > 0).then(polars.col("rating")).alias("rating")
        return replace(data, frame=data.frame.with_columns(rating), removed={**data.removed, **removed})


def _named(text: str | None, name: str) -> list[str]:
    """One value of each object in a list of objects."""
    try:
        objects = json.loads(text) if text and text.startswith("[") else []
    except ValueError:
        # A text that merely begins like a list.
        objects = []
    return [plain_text(str(content[name])) for content in objects if isinstance(content, dict) and content.get(name)]
