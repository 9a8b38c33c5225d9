"""Sources that read two files of JSON lines: reviews, and what is known of the reviewed items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars
from pydantic import Field as Setting

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests
from reaemb_bench.data.interactions import About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.lines import MALFORMED_LIMIT, BadLines, Field, read_json_lines
from reaemb_bench.data.sources.table import keys

Line = dict[str, Any]


class ReviewFiles(Component):
    """The settings of sources that read one file of reviews and one of the reviewed items."""

    version: ClassVar[int] = 2
    about: ClassVar[About] = About()

    reviews: Path
    """File of JSON lines with one review each, plain or gzip."""
    metadata: Path
    """File of JSON lines with one item each, plain or gzip."""
    name: str = ""
    """Name of the data set in tables; empty takes that of the file of reviews, without its suffixes."""
    malformed_limit: int = Setting(default=MALFORMED_LIMIT, ge=0)
    """Malformed lines of each file that are tolerated; they are counted and left out."""

    def identity(self) -> dict[str, Any]:
        """Settings and contents without paths: the same files in another folder are the same data."""
        return {**super().identity(), "reviews": "", "metadata": "", "name": self.title}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files, or the first that is missing."""
        return file_digests({"reviews": self.reviews, "metadata": self.metadata})

    @property
    def title(self) -> str:
        """The name in tables."""
        return self.name or self.reviews.name.split(".")[0]


@dataclass(frozen=True)
class Form:
    """How a publisher writes the two files.

    user, item, time, rating: names of fields of a review. moment: how the time is written; its unit is known. key: the
    field of the metadata that holds the item. fields: the other fields of the metadata. attributes: makes an item's
    attributes from a line of metadata. literals: see `read_json_lines`.
    """

    user: str
    item: str
    time: str
    rating: str
    moment: Field
    key: str
    fields: Mapping[str, Field]
    attributes: Callable[[Line], Attributes]
    instruction: str
    literals: bool = False


def read_reviews(files: ReviewFiles, form: Form) -> Interactions:
    """Returns all reviews and the attributes of the items among them.

    Raises UserError if a file is absent or not of this form, or if the two do not belong together.
    """
    bad_reviews, bad_items = (BadLines(file, files.malformed_limit) for file in (files.reviews, files.metadata))
    key = Field("text", required=True)
    fields = {form.user: key, form.item: key, form.time: form.moment, form.rating: Field("number")}
    parts, unnamed = [], 0
    for read in read_json_lines(files.reviews, fields, bad_reviews):
        columns = {"user": keys(read[form.user]), "item": keys(read[form.item])}
        rows = polars.DataFrame({**columns, "timestamp": read[form.time], "rating": read[form.rating]})
        named = rows.drop_nulls(["user", "item"])
        unnamed += rows.height - named.height
        # As categories each key is kept once, so that the rows of a large file stay small.
        parts.append(named.cast({"user": polars.Categorical, "item": polars.Categorical}))
    if not sum(part.height for part in parts):
        raise UserError(
            f"{files.reviews} has no review with '{form.user}' and '{form.item}'{bad_reviews.hint}; give a whole file"
        )
    frame = polars.concat(parts)

    reviewed = set(frame["item"].unique())
    items: dict[str, Attributes] = {}
    unused = repeated = 0
    for read in read_json_lines(files.metadata, {form.key: key, **form.fields}, bad_items, form.literals):
        for line in read.iter_rows(named=True):
            item = line.pop(form.key).strip()
            if item not in reviewed:
                unused += 1
            elif item in items:
                repeated += 1
            else:
                items[item] = form.attributes(line)
    if not items:
        raise UserError(
            f"no item of {files.reviews} (field '{form.item}', such as '{frame['item'][0]}') occurs in "
            f"{files.metadata} (field '{form.key}'){bad_items.hint}; take two files that belong together"
        )
    removed = {
        **bad_reviews.removed("interactions"),
        "reviews without user or item": Removed(interactions=unnamed),
        **bad_items.removed("items"),
        "metadata of items without reviews": Removed(items=unused),
        "repeated metadata": Removed(items=repeated),
        "items without metadata (they stay)": Removed(items=len(reviewed) - len(items)),
    }
    unit = form.moment.unit or "s"
    data = Interactions(files.title, frame, items, form.instruction, removed, files.about, unit)
    return without_duplicates(data)
