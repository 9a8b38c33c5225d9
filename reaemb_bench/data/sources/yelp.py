"""The Yelp Open Dataset: reviews of local businesses with dates to the second."""

from __future__ import annotations

import ast
import json
from typing import ClassVar

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.lines import Field
from reaemb_bench.data.sources.reviews import Line, ReviewFiles, read_reviews
from reaemb_bench.data.text import one_text, plain_text, readable

_ATTRIBUTES = (
    *("name", "address", "city", "state", "postal_code", "latitude", "longitude"),
    *("attributes", "categories", "hours"),
)
FROM_THE_FUTURE = ("stars", "review_count", "is_open")
"""Attributes of the day of publication, which the time of the interactions did not know."""


class Yelp(ReviewFiles):
    """The Yelp Open Dataset: `yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json`.

    Attributes: the business's own in the publisher's order, its name called title; categories, what is offered and
    opening hours as lists.
    """

    about: ClassVar[About] = About(
        "https://business.yelp.com/data/resources/open-dataset",
        "Yelp Dataset User Agreement: academic use, no redistribution",
        "Yelp Open Dataset",
    )

    name: str = "yelp"
    """Name of the data set in tables."""
    with_final_counts: bool = False
    """Also stars, review_count and is_open, which are of the day of publication: the paper's prompts have them, and
    they tell how popular a business became after the interactions that are learned from."""

    def read(self, machine: Machine) -> Interactions:
        """Returns all reviews and the reviewed businesses. Raises UserError naming file, lines and cure."""
        names = _ATTRIBUTES + FROM_THE_FUTURE * self.with_final_counts

        def attributes(line: Line) -> Attributes:
            return {"title" if name == "name" else name: _value(name, line[name] or "") for name in names}

        return read_reviews(
            self,
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
