"""Sources that read two files of JSON lines: reviews, and what is known of the reviewed items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import polars

from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import SCHEMA, About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.lines import MALFORMED_LIMIT, BadLines, Field, MalformedLimit, read_json_lines
from reaemb_bench.data.sources import FileSource

Line = dict[str, Any]


class ReviewFiles(FileSource):
    """The settings of sources that read one file of reviews and one of the reviewed items."""

    version: ClassVar[int] = 2
    about: ClassVar[About] = About()

    reviews: Path
    """File of JSON lines with one review each, plain or gzip."""
    metadata: Path
    """File of JSON lines with one item each, plain or gzip."""
    name: str = ""
    """Name of the data set in tables; empty takes that of the file of reviews, without its suffixes."""
    malformed_limit: MalformedLimit = MALFORMED_LIMIT

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return self.name or self.reviews.name.split(".")[0]


def read_reviews(
    files: ReviewFiles,
    columns: tuple[str, str, str, str],
    time: Field,
    fields: Mapping[str, Field],
    attributes: Callable[[Line], Attributes],
    instruction: str,
    literals: bool = False,
) -> Interactions:
    """Returns all reviews and the attributes of the items among them.

    columns: fields of a review that hold user, item, time and rating; the item has the same name in the metadata.
    time: how the time is written. fields: the other fields of the metadata. attributes: makes an item's attributes
    from a line of metadata. literals: see `read_json_lines`. Raises UserError if a file is absent or not of this form,
    or if the two do not belong together.
    """
    bad_reviews, bad_items = (BadLines(file, files.malformed_limit) for file in (files.reviews, files.metadata))
    user, item, _, _ = columns
    key = Field("text", required=True)
    wanted = [polars.col(name).alias(role) for role, name in zip(SCHEMA, columns, strict=True)]
    # As categories each key is kept once, so that the rows of a large file stay small.
    keys = polars.col("user", "item").str.strip_chars().replace("", None).cast(polars.Categorical)
    parts, height = [], 0
    for read in read_json_lines(
        files.reviews, dict(zip(columns, (key, key, time, Field("number")), strict=True)), bad_reviews
    ):
        parts.append(read.lazy().select(wanted).with_columns(keys).drop_nulls(["user", "item"]).collect())
        height += read.height
    named = sum(part.height for part in parts)
    if not named:
        raise UserError(
            f"{files.reviews} has no review with '{user}' and '{item}'{bad_reviews.hint}; give a whole file"
        )
    frame = polars.concat(parts)

    reviewed = set(frame["item"].unique())
    items: dict[str, Attributes] = {}
    unused = repeated = 0
    for read in read_json_lines(files.metadata, {item: key, **fields}, bad_items, literals):
        for line in read.iter_rows(named=True):
            item_key = line.pop(item).strip()
            if item_key not in reviewed:
                unused += 1
            elif item_key in items:
                repeated += 1
            else:
                items[item_key] = attributes(line)
    if not items:
        raise UserError(
            f"no item of {files.reviews} (field '{item}', such as '{frame['item'][0]}') occurs in "
            f"{files.metadata} (field '{item}'){bad_items.hint}; take two files that belong together"
        )
    removed = {
        **bad_reviews.removed("interactions"),
        "reviews without user or item": Removed(interactions=height - named),
        **bad_items.removed("items"),
        "metadata of items without reviews": Removed(items=unused),
        "repeated metadata": Removed(items=repeated),
        "items without metadata (they stay)": Removed(items=len(reviewed) - len(items)),
    }
    data = Interactions(files.data_name, frame, items, instruction, removed, files.about, time.unit or "s")
    return without_duplicates(data)
