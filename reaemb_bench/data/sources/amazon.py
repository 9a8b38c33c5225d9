"""Amazon reviews in the three forms in which they were published: 2014, 2018 and 2023."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import ClassVar

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.json_lines import Field
from reaemb_bench.data.sources.reviews import Form, Line, ReviewFiles, read_reviews

_FEATURES = 4
_INSTRUCTION = "The item has the following attributes:"
_SENTENCES = re.compile(r"(?<=[.!?])\s")
_BREAKS = r"(?i)</?(?:br|p|li|ul|ol|div|t[drh]|table|h[1-6])\b[^<>]*>"
_LICENCE = "published for research; no licence stated, citation asked for"
_TEXT, _TEXTS, _WHOLE = Field("text"), Field("texts"), Field("whole", required=True)


class Amazon2023(ReviewFiles):
    """Amazon Reviews 2023: `<Category>.jsonl` and `meta_<Category>.jsonl`, plain or gzip; variants share an item.

    Attributes: title, category (the main category, then the others without it), price, store, features (at most 4,
    each cut at " - ", none twice) and description (first sentence of the first paragraph), without HTML.
    """

    about: ClassVar[About] = About(
        "https://amazon-reviews-2023.github.io",
        _LICENCE,
        "Hou et al., Bridging Language and Items for Retrieval and Recommendation, arXiv 2403.03952, 2024",
    )

    def read(self, machine: Machine) -> Interactions:
        """All reviews and the reviewed items. Raises UserError naming file, lines and cure."""
        return read_reviews(self, _FORM_2023)


class Amazon2018(ReviewFiles):
    """Amazon reviews, 2018: `<Category>.json` and `meta_<Category>.json`, plain or gzip.

    Attributes as in `amazon-2023`, with the brand in place of the store and the path of categories as it is. Titles
    and prices that are a piece of the shop's page instead are left empty.
    """

    about: ClassVar[About] = About(
        "https://nijianmo.github.io/amazon",
        _LICENCE,
        "Ni, Li, McAuley, Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects, "
        "EMNLP 2019",
    )

    def read(self, machine: Machine) -> Interactions:
        """All reviews and the reviewed items. Raises UserError naming file, lines and cure."""
        return read_reviews(self, _FORM_2018)


class Amazon2014(ReviewFiles):
    """Amazon reviews, 2014: `reviews_<Category>.json` and `meta_<Category>.json`, plain or gzip.

    Metadata may be JSON or, as published, Python dictionaries, of which only constants are read and nothing is
    executed. Attributes: title, category (the names of all paths, none twice), price, brand and description.
    """

    about: ClassVar[About] = About(
        "https://jmcauley.ucsd.edu/data/amazon",
        _LICENCE,
        "McAuley, Targett, Shi, van den Hengel, Image-Based Recommendations on Styles and Substitutes, SIGIR 2015",
    )

    def read(self, machine: Machine) -> Interactions:
        """All reviews and the reviewed items. Raises UserError naming file, lines and cure."""
        return read_reviews(self, _FORM_2014)


def _attributes_2023(line: Line) -> Attributes:
    return {
        "title": _clean(line["title"]),
        "category": _categories(_clean(line["main_category"]), line["categories"]),
        "price": _price(line["price"]),
        "store": _clean(line["store"]),
        "features": _features(line["features"]),
        "description": _description(line["description"]),
    }


def _attributes_2018(line: Line) -> Attributes:
    return {
        "title": "" if "getTime" in (line["title"] or "") else _clean(line["title"]),
        "category": _categories("", line["category"] or line["categories"]),
        "price": _price(line["price"]),
        "brand": _clean(line["brand"]),
        "features": _features(line["feature"]),
        "description": _description(line["description"]),
    }


def _attributes_2014(line: Line) -> Attributes:
    return {
        "title": _clean(line["title"]),
        "category": _categories("", line["categories"] or line["category"]),
        "price": _price(line["price"]),
        "brand": _clean(line["brand"]),
        "description": _description(line["description"]),
    }


def _clean(text: str | None) -> str:
    """Text on one line without HTML: entities as characters, tags that end a line as spaces."""
    if not text:
        return ""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = re.sub(r"<[!/a-zA-Z][^<>]*>", "", re.sub(_BREAKS, " ", text))
    return " ".join(text.split())


def _categories(main: str, others: Iterable[str] | None) -> list[str]:
    """The main category, then the others, each once, however they are capitalised."""
    named: dict[str, str] = {}
    for name in (main, *map(_clean, others or ())):
        named.setdefault(name.lower(), name)
    named.pop("", None)
    return [*named.values()]


def _features(features: Iterable[str] | None) -> list[str]:
    """The first four that differ, each without what follows " - "."""
    short: dict[str, None] = {}
    for feature in features or ():
        if named := _clean(feature).split(" - ")[0].strip():
            short[named] = None
        if len(short) == _FEATURES:
            break
    return [*short]


def _description(paragraphs: Iterable[str] | None) -> str:
    """The first sentence of the first paragraph that has text."""
    first = next((text for text in map(_clean, paragraphs or ()) if text), "")
    return _SENTENCES.split(first, maxsplit=1)[0]


def _price(price: str | None) -> str:
    """The price where it is one: it starts with digits, perhaps after a currency's sign."""
    text = _clean(price)
    return text if re.match(r"\D{0,3}\d", text) else ""


_FORM_2023 = Form(
    user="user_id",
    item="parent_asin",
    time="timestamp",
    rating="rating",
    key="parent_asin",
    fields={
        "title": _TEXT,
        "main_category": _TEXT,
        "categories": _TEXTS,
        "price": _TEXT,
        "store": _TEXT,
        "features": _TEXTS,
        "description": _TEXTS,
    },
    attributes=_attributes_2023,
    instruction=_INSTRUCTION,
    moment=_WHOLE,
)

_FORM_2018 = Form(
    user="reviewerID",
    item="asin",
    time="unixReviewTime",
    rating="overall",
    key="asin",
    fields={
        "title": _TEXT,
        "category": _TEXTS,
        "categories": _TEXTS,
        "price": _TEXT,
        "brand": _TEXT,
        "feature": _TEXTS,
        "description": _TEXTS,
    },
    attributes=_attributes_2018,
    instruction=_INSTRUCTION,
    moment=_WHOLE,
)

_FORM_2014 = Form(
    user="reviewerID",
    item="asin",
    time="unixReviewTime",
    rating="overall",
    key="asin",
    fields={
        "title": _TEXT,
        "category": _TEXTS,
        "categories": _TEXTS,
        "price": _TEXT,
        "brand": _TEXT,
        "description": _TEXTS,
    },
    attributes=_attributes_2014,
    instruction=_INSTRUCTION,
    moment=_WHOLE,
    literals=True,
)
