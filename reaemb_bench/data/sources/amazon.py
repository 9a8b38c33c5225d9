"""Amazon reviews in the three forms in which they were published: 2014, 2018 and 2023."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import nearest
from reaemb_bench.data.interactions import About, Attributes, Interactions
from reaemb_bench.data.lines import Field
from reaemb_bench.data.published import PublishedFile
from reaemb_bench.data.published_split import PARTS
from reaemb_bench.data.sources.reviews import LAB, Line, ReviewFiles, read_reviews
from reaemb_bench.data.text import one_text, plain_text

_FEATURES = 4
_SENTENCES = re.compile(r"(?<=[.!?])\s")
# A price starts with digits, perhaps after a currency's sign, or with a name and a colon.
_PRICE = re.compile(r"(?:\w+: [^{}]*)?\D{0,3}\d")
_LICENCE = "published for research; no licence stated, citation asked for"
_CATEGORIES = frozenset(
    re.findall(
        r"\w+",
        "Automotive Books CDs_and_Vinyl Cell_Phones_and_Accessories Clothing_Shoes_and_Jewelry Digital_Music "
        "Electronics Grocery_and_Gourmet_Food Home_and_Kitchen Kindle_Store Movies_and_TV Musical_Instruments "
        "Office_Products Patio_Lawn_and_Garden Pet_Supplies Sports_and_Outdoors Tools_and_Home_Improvement "
        "Toys_and_Games Video_Games",
    )
)
_LATER = frozenset(
    re.findall(
        r"\w+",
        "All_Beauty Appliances Arts_Crafts_and_Sewing Gift_Cards Industrial_and_Scientific Magazine_Subscriptions "
        "Software",
    )
)


class _Amazon(ReviewFiles):
    edition: ClassVar[int]
    categories: ClassVar[frozenset[str]]
    homes: ClassVar[tuple[str, ...]]
    files: ClassVar[dict[str, str]]
    """Preset, and `metadata`, -> the published file of a category; {part} stands for train, valid and test."""

    category: str = ""
    """Category of products whose files are downloaded, such as `Video_Games`; else give `reviews` and `metadata`."""
    preset: str = "all"

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if self.category and self.category not in self.categories:
            hint = nearest(self.category, self.categories)
            known = ", ".join(sorted(self.categories))
            raise ValueError(f"no category is called '{self.category}'.{hint} Known: {known}")
        if not self.category and not (self.reviews and self.metadata):
            raise ValueError('name a category, as in category = "Video_Games", or give both reviews and metadata')
        return self

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return super().data_name if self.name or self.reviews else self.category

    def identity(self) -> dict[str, Any]:
        """Contents alone: category and preset choose files, of which the fingerprint holds what they are."""
        return {**super().identity(), "category": "", "preset": ""}

    def published(self) -> Mapping[str, PublishedFile]:
        """The category's files, without those that settings name."""
        reviews = self.files[self.preset]
        words = PARTS if "{part}" in reviews else {"reviews": ""}
        names = {} if self.reviews else {part: reviews.format(self.category, part=word) for part, word in words.items()}
        if not self.metadata:
            names["metadata"] = self.files["metadata"].format(self.category)
        return {part: PublishedFile(tuple(f"{home}/{name}" for home in self.homes)) for part, name in names.items()}

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
            self.fetch(machine),
            columns,
            time,
            {"title": Field("text"), **anything, **parts},
            attributes,
            "The item has the following attributes:",
            literals=edition == 2014,
        )


class Amazon2023(_Amazon):
    """Amazon Reviews 2023: a category by its name, or its files `<Category>.jsonl` and `meta_<Category>.jsonl`.

    Variants share an item. Attributes: title, category (the main category, then the others without it), price, store,
    features (at most 4, each cut at " - ", none twice) and description (first sentence of the first paragraph),
    without HTML.
    """

    edition: ClassVar[int] = 2023
    homes: ClassVar[tuple[str, ...]] = tuple(f"{home}/data/amazon_2023" for home in LAB)
    files: ClassVar[dict[str, str]] = {
        "all": "raw/review_categories/{}.jsonl.gz",
        "5-core": "benchmark/5core/rating_only/{}.csv.gz",
        "last-out": "benchmark/5core/last_out/{}.{part}.csv.gz",
        "timestamp": "benchmark/5core/timestamp/{}.{part}.csv.gz",
        "0-core-timestamp": "benchmark/0core/timestamp/{}.{part}.csv.gz",
        "metadata": "raw/meta_categories/meta_{}.jsonl.gz",
    }
    categories: ClassVar[frozenset[str]] = (
        _CATEGORIES
        | _LATER
        | {
            "Amazon_Fashion",
            "Baby_Products",
            "Beauty_and_Personal_Care",
            "Handmade_Products",
            "Health_and_Household",
            "Health_and_Personal_Care",
            "Subscription_Boxes",
            "Unknown",
        }
    )
    about: ClassVar[About] = About(
        "https://amazon-reviews-2023.github.io",
        _LICENCE,
        "Hou et al., Bridging Language and Items for Retrieval and Recommendation, arXiv 2403.03952, 2024",
        download="by category",
        minutes="4 a GB",
    )

    preset: Literal["all", "5-core", "last-out", "timestamp", "0-core-timestamp"] = "all"
    """What is downloaded. `all`: every review. The others are the publisher's, in which a user has an item once:
    `5-core`: users and items with 5 reviews or more. `last-out` and `timestamp`: the 5-core in training, validation
    and test by leaving out the last two, or by two points in time. `0-core-timestamp`: by time without the 5-core. All
    three are for the split `published`. Reviews of your own may be in such parts, too: name `X.train.csv`."""


class Amazon2018(_Amazon):
    """Amazon reviews, 2018: a category by its name, or its files `<Category>.json` and `meta_<Category>.json`.

    Attributes as in `amazon-2023`, with the brand in place of the store and the path of categories as it is. Titles
    and prices that are a piece of the shop's page instead are left empty.
    """

    edition: ClassVar[int] = 2018
    homes: ClassVar[tuple[str, ...]] = tuple(f"{home}/data/amazon_v2" for home in LAB)
    files: ClassVar[dict[str, str]] = {
        "all": "categoryFiles/{}.json.gz",
        "5-core": "categoryFilesSmall/{}_5.json.gz",
        "metadata": "metaFiles2/meta_{}.json.gz",
    }
    categories: ClassVar[frozenset[str]] = _CATEGORIES | _LATER | {"AMAZON_FASHION", "Luxury_Beauty", "Prime_Pantry"}
    about: ClassVar[About] = About(
        "https://nijianmo.github.io/amazon",
        _LICENCE,
        "Ni, Li, McAuley, Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects, "
        "EMNLP 2019",
        download="by category; 5-core of Industrial 95 MB",
        minutes="4 a GB",
    )

    preset: Literal["all", "5-core"] = "all"
    """What is downloaded: every review, or those of users and items with 5 or more, as the publisher filtered them."""


class Amazon2014(_Amazon):
    """Amazon reviews, 2014: a category by its name, or its files `reviews_<Category>.json` and `meta_<Category>.json`.

    Metadata may be JSON or, as published, Python dictionaries, of which only constants are read and nothing is
    executed. Attributes: title, category (the names of all paths, none twice), price, brand and description.
    """

    edition: ClassVar[int] = 2014
    homes: ClassVar[tuple[str, ...]] = ("https://snap.stanford.edu/data/amazon/productGraph/categoryFiles",)
    files: ClassVar[dict[str, str]] = {
        "all": "reviews_{}.json.gz",
        "5-core": "reviews_{}_5.json.gz",
        "metadata": "meta_{}.json.gz",
    }
    categories: ClassVar[frozenset[str]] = _CATEGORIES | frozenset(
        ("Amazon_Instant_Video", "Apps_for_Android", "Baby", "Beauty", "Health_and_Personal_Care")
    )
    about: ClassVar[About] = About(
        "https://jmcauley.ucsd.edu/data/amazon",
        _LICENCE,
        "McAuley, Targett, Shi, van den Hengel, Image-Based Recommendations on Styles and Substitutes, SIGIR 2015",
        download="by category",
        minutes="4 a GB",
    )

    preset: Literal["all", "5-core"] = "all"
    """What is downloaded: every review, or those of users and items with 5 or more, as the publisher filtered them."""
