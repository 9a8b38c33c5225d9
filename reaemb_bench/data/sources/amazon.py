"""Amazon reviews in the three forms in which they were published: 2014, 2018 and 2023."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import ClassVar

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.lines import Field
from reaemb_bench.data.sources.reviews import Form, Line, ReviewFiles, read_reviews
from reaemb_bench.data.text import one_text, plain_text

_FEATURES = 4
_INSTRUCTION = "The item has the following attributes:"
_SENTENCES = re.compile(r"(?<=[.!?])\s")
_LICENCE = "published for research; no licence stated, citation asked for"


def _fields(texts: str, lists: str) -> dict[str, Field]:
    """Fields of the metadata: the title, further ones that may hold anything, and lists."""
    anything, parts = dict.fromkeys(texts.split(), Field("json")), dict.fromkeys(lists.split(), Field("parts"))
    return {"title": Field("text"), **anything, **parts}


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
        """Returns all reviews and the reviewed items. Raises UserError naming file, lines and cure."""
        form = Form(
            user="user_id",
            item="parent_asin",
            time="timestamp",
            rating="rating",
            moment=Field("whole", required=True, unit="ms"),
            key="parent_asin",
            fields=_fields("main_category price store", "categories features description"),
            attributes=_attributes_2023,
            instruction=_INSTRUCTION,
        )
        return read_reviews(self, form)


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
        """Returns all reviews and the reviewed items. Raises UserError naming file, lines and cure."""
        return read_reviews(self, _older_form(_attributes_2018, "category categories feature description"))


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
        """Returns all reviews and the reviewed items. Raises UserError naming file, lines and cure."""
        return read_reviews(self, _older_form(_attributes_2014, "category categories description", literals=True))


def _older_form(attributes: Callable[[Line], Attributes], lists: str, literals: bool = False) -> Form:
    return Form(
        user="reviewerID",
        item="asin",
        time="unixReviewTime",
        rating="overall",
        moment=Field("whole", required=True, unit="s"),
        key="asin",
        fields=_fields("price brand", lists),
        attributes=attributes,
        instruction=_INSTRUCTION,
        literals=literals,
    )


def _attributes_2023(line: Line) -> Attributes:
    return {
        "title": plain_text(line["title"]),
        "category": _categories(one_text(line["main_category"]), line["categories"]),
        "price": _price(line["price"]),
        "store": one_text(line["store"]),
        "features": _features(line["features"]),
        "description": _description(line["description"]),
    }


def _attributes_2018(line: Line) -> Attributes:
    return {
        "title": "" if "getTime" in (line["title"] or "") else plain_text(line["title"]),
        "category": _categories("", line["category"] or line["categories"]),
        "price": _price(line["price"]),
        "brand": one_text(line["brand"]),
        "features": _features(line["feature"]),
        "description": _description(line["description"]),
    }


def _attributes_2014(line: Line) -> Attributes:
    return {
        "title": plain_text(line["title"]),
        "category": _categories("", line["categories"] or line["category"]),
        "price": _price(line["price"]),
        "brand": one_text(line["brand"]),
        "description": _description(line["description"]),
    }


def _categories(main: str, others: Iterable[str] | None) -> list[str]:
    """The main category, then the others, each once, ignoring capitals."""
    names: dict[str, str] = {}
    for name in (main, *map(one_text, others or ())):
        names.setdefault(name.lower(), name)
    return [name for name in names.values() if name]


def _features(features: Iterable[str] | None) -> list[str]:
    """The first four that differ, each without what follows " - "."""
    short = (one_text(feature).split(" - ")[0].strip() for feature in features or ())
    return [*dict.fromkeys(filter(None, short))][:_FEATURES]


def _description(paragraphs: Iterable[str] | None) -> str:
    """The first sentence of the first paragraph that has text."""
    first = next((text for text in map(one_text, paragraphs or ()) if text), "")
    return _SENTENCES.split(first, maxsplit=1)[0]


def _price(price: str | None) -> str:
    """The price if it is one: it starts with digits, perhaps after a currency's sign, or with a name and a colon."""
    text = one_text(price)
    return text if re.match(r"(?:\w+: [^{}]*)?\D{0,3}\d", text) else ""
