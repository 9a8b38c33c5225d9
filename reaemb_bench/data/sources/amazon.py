"""Amazon reviews in the three forms in which they were published: 2014, 2018 and 2023."""

from __future__ import annotations

import re
from typing import ClassVar

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.lines import Field
from reaemb_bench.data.sources.reviews import Line, ReviewFiles, read_reviews
from reaemb_bench.data.text import one_text, plain_text

_FEATURES = 4
_SENTENCES = re.compile(r"(?<=[.!?])\s")
# A price starts with digits, perhaps after a currency's sign, or with a name and a colon.
_PRICE = re.compile(r"(?:\w+: [^{}]*)?\D{0,3}\d")
_LICENCE = "published for research; no licence stated, citation asked for"


class _Amazon(ReviewFiles):
    edition: ClassVar[int]

    def read(self, machine: Machine) -> Interactions:
        """Returns all reviews and the reviewed items. Raises UserError naming file, lines and cure."""
        edition = self.edition
        categories = {2014: ("categories", "category"), 2018: ("category", "categories"), 2023: ("categories",)}[
            self.edition
        ]
        features = {2014: "", 2018: "feature", 2023: "features"}[edition]
        store, main_category = ("store", "main_category") if edition == 2023 else ("brand", "")

        def attributes(line: Line) -> Attributes:
            title, price = line["title"] or "", one_text(line["price"])
            if edition == 2018 and "getTime" in title:
                # A piece of the shop's page.
                title = ""
            others = next((line[name] for name in categories if line[name]), ())
            names: dict[str, str] = {}
            for name in map(one_text, (line.get(main_category), *others)):
                names.setdefault(name.lower(), name)
            short = (one_text(feature).split(" - ")[0].strip() for feature in line.get(features) or ())
            paragraph = next((text for text in map(one_text, line["description"] or ()) if text), "")
            return {
                "title": plain_text(title),
                "category": [name for name in names.values() if name],
                "price": price if _PRICE.match(price) else "",
                store: one_text(line[store]),
                **({"features": [*dict.fromkeys(filter(None, short))][:_FEATURES]} if features else {}),
                "description": _SENTENCES.split(paragraph, maxsplit=1)[0],
            }

        anything = dict.fromkeys(filter(None, (main_category, "price", store)), Field("json"))
        parts = dict.fromkeys(filter(None, (*categories, features, "description")), Field("parts"))
        columns, time = ("reviewerID", "asin", "unixReviewTime", "overall"), Field("whole", required=True, unit="s")
        if edition == 2023:
            columns, time = ("user_id", "parent_asin", "timestamp", "rating"), Field("whole", required=True, unit="ms")
        return read_reviews(
            self,
            columns,
            time,
            {"title": Field("text"), **anything, **parts},
            attributes,
            "The item has the following attributes:",
            literals=edition == 2014,
        )


class Amazon2023(_Amazon):
    """Amazon Reviews 2023: `<Category>.jsonl` and `meta_<Category>.jsonl`, plain or gzip; variants share an item.

    Attributes: title, category (the main category, then the others without it), price, store, features (at most 4,
    each cut at " - ", none twice) and description (first sentence of the first paragraph), without HTML.
    """

    edition: ClassVar[int] = 2023
    about: ClassVar[About] = About(
        "https://amazon-reviews-2023.github.io",
        _LICENCE,
        "Hou et al., Bridging Language and Items for Retrieval and Recommendation, arXiv 2403.03952, 2024",
    )


class Amazon2018(_Amazon):
    """Amazon reviews, 2018: `<Category>.json` and `meta_<Category>.json`, plain or gzip.

    Attributes as in `amazon-2023`, with the brand in place of the store and the path of categories as it is. Titles
    and prices that are a piece of the shop's page instead are left empty.
    """

    edition: ClassVar[int] = 2018
    about: ClassVar[About] = About(
        "https://nijianmo.github.io/amazon",
        _LICENCE,
        "Ni, Li, McAuley, Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects, "
        "EMNLP 2019",
    )


class Amazon2014(_Amazon):
    """Amazon reviews, 2014: `reviews_<Category>.json` and `meta_<Category>.json`, plain or gzip.

    Metadata may be JSON or, as published, Python dictionaries, of which only constants are read and nothing is
    executed. Attributes: title, category (the names of all paths, none twice), price, brand and description.
    """

    edition: ClassVar[int] = 2014
    about: ClassVar[About] = About(
        "https://jmcauley.ucsd.edu/data/amazon",
        _LICENCE,
        "McAuley, Targett, Shi, van den Hengel, Image-Based Recommendations on Styles and Substitutes, SIGIR 2015",
    )
