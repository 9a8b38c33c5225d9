"""The UCSD Book Graph: what readers of Goodreads put on their shelves, with dates to the second."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field as Setting

from reaemb_bench.core.files import file_digests
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions, Removed
from reaemb_bench.data.json_lines import Field, Malformed, read_lines
from reaemb_bench.data.sources.reviews import Form, Line, ReviewFiles, read_reviews

_FIELDS = {
    "title": Field("text"),
    "authors": Field("json"),
    "series": Field("texts"),
    "publisher": Field("text"),
    "publication_year": Field("text"),
    "popular_shelves": Field("json"),
    "description": Field("text"),
}
_EVERYBODYS = ("to-read", "currently-reading", "read")
"""Shelves that every reader has: they tell nothing of a book."""


class Goodreads(ReviewFiles):
    """The UCSD Book Graph: `goodreads_interactions_<genre>.json.gz` and `goodreads_books_<genre>.json.gz`.

    Every shelved book is an interaction at its date_added, read or not. A rating of 0 is none, so that the filter
    `rating` with a minimum of 1 keeps the rated ones. Attributes: title, authors, series (numbers), publisher,
    publication_year, shelves and description.
    """

    about: ClassVar[About] = About(
        home="https://mengtingwan.github.io/data/goodreads.html",
        licence="academic use only, no redistribution, no commercial use",
        citation=(
            "Mengting Wan, Julian McAuley, Item Recommendation on Monotonic Behavior Chains, RecSys 2018; "
            "Mengting Wan, Rishabh Misra, Ndapa Nakashole, Julian McAuley, Fine-Grained Spoiler Detection from "
            "Large-Scale Review Corpora, ACL 2019"
        ),
    )

    authors: Path | None = None
    """File `goodreads_book_authors.json.gz` with the authors' names; without it authors are numbers."""
    shelves: int = Setting(default=10, ge=0)
    """Names of popular shelves to keep, the most used first. Their counts are left out, being of the day of
    publication, and so are to-read, currently-reading and read; 0 keeps none."""

    def identity(self) -> dict[str, Any]:
        """Settings and contents, not places: the same files in another folder are the same data."""
        return {**super().identity(), "authors": ""}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of all files, or the first that is missing: a plan can be drawn up without the data."""
        named = {"authors": self.authors} if self.authors else {}
        return file_digests({"reviews": self.reviews, "metadata": self.metadata, **named})

    def read(self, machine: Machine) -> Interactions:
        """All interactions and their books. Raises UserError naming file, lines and cure."""
        import polars

        names, removed = _names(self.authors, self.malformed_limit) if self.authors else ({}, {})
        form = Form(
            user="user_id",
            item="book_id",
            time="date_added",
            rating="rating",
            key="book_id",
            fields=_FIELDS,
            attributes=partial(_attributes, names, self.shelves),
            instruction="The book has the following attributes:",
            moment=Field("time", required=True, form="%a %b %d %H:%M:%S %z %Y"),
        )
        data = read_reviews(self, form)
        rated = polars.when(polars.col("rating") > 0).then(polars.col("rating"))
        return replace(data, frame=data.frame.with_columns(rated.alias("rating")), removed={**data.removed, **removed})


def _names(file: Path, limit: int) -> tuple[dict[str, str], dict[str, Removed]]:
    """Author -> name, and what could not be read."""
    malformed = Malformed(file, limit)
    fields = {"author_id": Field("text", required=True), "name": Field("text", required=True)}
    names = {key: name for frame in read_lines(file, fields, malformed) for key, name in frame.iter_rows()}
    return names, malformed.removed("items")


def _attributes(names: Mapping[str, str], shelves: int, line: Line) -> Attributes:
    authors = _each(line["authors"], "author_id")
    shelf_names = [name for name in _each(line["popular_shelves"], "name") if name not in _EVERYBODYS]
    return {
        "title": line["title"] or "",
        "authors": [names.get(author, author) for author in authors],
        "series": line["series"] or [],
        "publisher": line["publisher"] or "",
        "publication_year": line["publication_year"] or "",
        "shelves": shelf_names[:shelves],
        "description": line["description"] or "",
    }


def _each(text: str | None, name: str) -> list[str]:
    """One value of each object in a list of objects."""
    try:
        made = json.loads(text) if text and text.startswith("[") else []
    except ValueError:
        # A text that merely begins like a list.
        made = []
    return [str(each[name]) for each in made if isinstance(each, dict) and each.get(name)]
