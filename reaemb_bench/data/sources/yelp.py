"""The Yelp Open Dataset: reviews of local businesses with dates to the second."""

from __future__ import annotations

import ast
import json
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.download import released
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.lines import Field
from reaemb_bench.data.sources.reviews import Line, ReviewFiles, read_reviews
from reaemb_bench.data.text import one_text, plain_text, readable

_ATTRIBUTES = (
    *("name", "address", "city", "state", "postal_code", "latitude", "longitude"),
    *("attributes", "categories", "hours"),
)
_FILES = {"reviews": "yelp_academic_dataset_review.json", "metadata": "yelp_academic_dataset_business.json"}
FROM_THE_FUTURE = ("stars", "review_count", "is_open")
"""Attributes of the day of publication, which the time of the interactions did not know."""


class Yelp(ReviewFiles):
    """The Yelp Open Dataset: the archive as it comes, or its files of reviews and of businesses.

    It cannot be downloaded without accepting its terms: do so at its home, and name `Yelp-JSON.zip` as `archive`.

    Attributes: the business's own in the publisher's order, its name called title; categories, what is offered and
    opening hours as lists.
    """

    about: ClassVar[About] = About(
        "https://business.yelp.com/data/resources/open-dataset",
        "Yelp Dataset User Agreement: academic use, no redistribution",
        "Yelp Open Dataset",
        download="by hand, 4 GB",
        minutes="5",
    )

    archive: Path | None = None
    """`Yelp-JSON.zip`, `yelp_dataset.tar` or a folder with the files, in place of `reviews` and `metadata`; the two
    files that are read are unpacked in the cache and deleted afterwards."""
    name: str = "yelp"
    """Name of the data set in tables."""
    with_final_counts: bool = False
    """Also stars, review_count and is_open, which are of the day of publication: the paper's prompts have them, and
    they tell how popular a business became after the interactions that are learned from."""

    def paths(self) -> dict[str, Path]:
        """The files that settings name, those in a folder one by one."""
        if self.archive is not None and self.archive.is_dir():
            return {held: self.archive / name for held, name in _FILES.items()}
        return super().paths()

    def read(self, machine: Machine) -> Interactions:
        """Returns all reviews and the reviewed businesses. Raises UserError naming file, lines and cure."""
        names = _ATTRIBUTES + FROM_THE_FUTURE * self.with_final_counts

        def attributes(line: Line) -> Attributes:
            return {"title" if name == "name" else name: _value(name, line[name] or "") for name in names}

        files = self.fetch(machine)
        if "archive" not in files and not files.keys() >= _FILES.keys():
            cure = f"accept the terms at {self.about.home}, download Yelp-JSON.zip there and set source.archive to it"
            raise UserError(f"{self.use} cannot be downloaded for you: {cure}")
        with ExitStack() as stack:
            if "archive" in files:
                unpacked = released(files["archive"], tuple(_FILES.values()), self.about.home, machine.cache)
                files = dict(zip(_FILES, stack.enter_context(unpacked).values(), strict=True))
            return read_reviews(
                self,
                files,
                ("user_id", "business_id", "date", "stars"),
                Field("date", required=True),
                dict.fromkeys(names, Field("json")),
                attributes,
                "The business has the following attributes:",
            )


def _value(name: str, text: str) -> str | list[str]:
    if name == "name":
        return plain_text(text)
    if name == "categories" and not text.startswith("["):
        return [category for part in plain_text(text).split(",") if (category := part.strip())]
    try:
        content = json.loads(text) if text.startswith("{") else None
    except ValueError:
        # A text that merely begins like an object.
        content = None
    if content is None:
        return readable(text)
    return [f"{key}: {offer}" for key, value in content.items() if (offer := plain_text(_offer(value)))]


def _offer(value: object) -> str:
    """What an attribute says; the publisher writes Python constants into strings: `u'free'`, `{'lot': True}`."""
    try:
        constant = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return str(value)
    if isinstance(constant, dict):
        return ", ".join(str(key) for key, offered in constant.items() if offered is True)
    return one_text(constant)
