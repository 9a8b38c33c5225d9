"""The Yelp Open Dataset: reviews of local businesses with dates to the second."""

from __future__ import annotations

import ast
import json
from functools import partial
from typing import ClassVar

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.json_lines import Field
from reaemb_bench.data.sources.reviews import Form, Line, ReviewFiles, read_reviews

_ATTRIBUTES = (
    "name",
    "address",
    "city",
    "state",
    "postal_code",
    "latitude",
    "longitude",
    "attributes",
    "categories",
    "hours",
)
FROM_THE_FUTURE = ("stars", "review_count", "is_open")
"""Attributes that are of the day of publication, not of the time of the interactions."""


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
        """All reviews and the reviewed businesses. Raises UserError naming file, lines and cure."""
        names = _ATTRIBUTES + FROM_THE_FUTURE * self.with_final_counts
        return read_reviews(self, _form(names))


def _form(names: tuple[str, ...]) -> Form:
    return Form(
        user="user_id",
        item="business_id",
        time="date",
        rating="stars",
        key="business_id",
        fields={name: Field("json") for name in names},
        attributes=partial(_attributes, names),
        instruction="The business has the following attributes:",
        moment=Field("time", required=True),
    )


def _attributes(names: tuple[str, ...], line: Line) -> Attributes:
    return {"title" if name == "name" else name: _value(name, line[name] or "") for name in names}


def _value(name: str, text: str) -> str | list[str]:
    if name == "categories":
        return [each for part in text.split(",") if (each := part.strip())]
    if text.startswith("{"):
        try:
            content = json.loads(text)
        except ValueError:
            # A text that merely begins like an object.
            return text.strip()
        offered = {key: _offered(value) for key, value in content.items()}
        return [f"{key}: {value}" for key, value in offered.items() if value]
    return text.strip()


def _offered(value: object) -> str:
    """What an attribute says; the publisher writes Python constants into strings: `u'free'`, `{'lot': True}`."""
    try:
        constant = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return str(value)
    if isinstance(constant, dict):
        return ", ".join(str(key) for key, stands in constant.items() if stands is True)
    return "" if constant is None else str(constant)
