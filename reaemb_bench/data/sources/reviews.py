"""Sources that read two files of JSON lines: reviews, and what is known of the reviewed items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import polars

from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import SCHEMA, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.lines import MALFORMED_LIMIT, BadLines, Field, MalformedLimit, read_delimited, read_json_lines
from reaemb_bench.data.published_split import PART, PARTS
from reaemb_bench.data.sources import FileSource, split_files

Line = dict[str, Any]
LAB = ("https://mcauleylab.ucsd.edu/public_datasets", "https://datarepo.eng.ucsd.edu/mcauley_group")
"""Where the group that collected most of these data sets publishes them now, and where it did before."""


class ReviewFiles(FileSource):
    """The settings of sources that read one file of reviews and one of the reviewed items."""

    version: ClassVar[int] = 2

    reviews: Path | None = None
    """File of JSON lines with one review each, plain or gzip; without it the published one is downloaded."""
    metadata: Path | None = None
    """File of JSON lines with one item each, plain or gzip; without it the published one is downloaded."""
    name: str = ""
    """Name of the data set in tables; empty takes that of the file of reviews, without its suffixes."""
    malformed_limit: MalformedLimit = MALFORMED_LIMIT

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return self.name or (self.reviews.name.split(".")[0] if self.reviews else self.use)

    def paths(self) -> dict[str, Path]:
        """The files that settings name; of reviews in three parts (`X.train.csv`) each by its part."""
        named = super().paths()
        parts = split_files(named["reviews"]) if "reviews" in named else {}
        return {name: file for name, file in named.items() if name != "reviews" or not parts} | parts


def read_reviews(
    source: ReviewFiles,
    files: Mapping[str, Path],
    columns: tuple[str, str, str, str],
    time: Field,
    fields: Mapping[str, Field],
    attributes: Callable[[Line], Attributes],
    instruction: str,
    literals: bool = False,
    item_key: str = "",
) -> Interactions:
    """Returns all reviews and the attributes of the items among them.

    files: `metadata`, and `reviews` or the three parts of a published split; one with .csv in its name has lines of
    user, item, rating and time below a header. columns: fields of a review that hold user, item, time and rating.
    time: how the time is written. fields: the other fields of the metadata. attributes: makes an item's attributes
    from a line of metadata. literals: see `read_json_lines`. item_key: the item's field in the metadata, if another.
    Raises UserError if a file is absent or not of this form, or if the two do not belong together.
    """
    user, item, moment, rating = columns
    item_key = item_key or item
    key = Field("text", required=True)
    kinds = {user: key, item: key, moment: time, rating: Field("number")}
    wanted = [polars.col(name).alias(role) for role, name in zip(SCHEMA, columns, strict=True)]
    # As categories each key is kept once, so that the rows of a large file stay small.
    keys = polars.col("user", "item").str.strip_chars().replace("", None).cast(polars.Categorical)
    frames, height = [], 0
    removed: dict[str, Removed] = {}
    for part in (part for part in ("reviews", *PARTS) if part in files):
        bad_reviews, named = BadLines(files[part], source.malformed_limit), 0
        is_csv = ".csv" in files[part].name
        blocks = (
            iter([read_delimited(files[part], (user, item, rating, moment), kinds, ",", True, bad_reviews)])
            if is_csv
            else read_json_lines(files[part], kinds, bad_reviews, literals)
        )
        for read in blocks:
            rows = read.lazy().select(wanted).with_columns(keys).drop_nulls(["user", "item"])
            if part in PARTS:
                rows = rows.with_columns(polars.lit(part, polars.Enum([*PARTS])).alias(PART))
            frames.append(rows.collect())
            height += read.height
            named += frames[-1].height
        if not named:
            raise UserError(
                f"{files[part]} has no review with '{user}' and '{item}'{bad_reviews.hint}; give a whole file"
            )
        removed |= bad_reviews.removed("interactions")
    frame = polars.concat(frames)

    reviewed = set(frame["item"].unique())
    bad_items = BadLines(files["metadata"], source.malformed_limit)
    items: dict[str, Attributes] = {}
    unused = repeated = 0
    for read in read_json_lines(files["metadata"], {item_key: key, **fields}, bad_items, literals):
        for line in read.iter_rows(named=True):
            name = line.pop(item_key).strip()
            if name not in reviewed:
                unused += 1
            elif name in items:
                repeated += 1
            else:
                items[name] = attributes(line)
    if not items:
        raise UserError(
            f"no item of {files[part]} (field '{item}', such as '{frame['item'][0]}') occurs in "
            f"{files['metadata']} (field '{item_key}'){bad_items.hint}; take two files that belong together"
        )
    removed |= {
        "reviews without user or item": Removed(interactions=height - frame.height),
        **bad_items.removed("items"),
        "metadata of items without reviews": Removed(items=unused),
        "repeated metadata": Removed(items=repeated),
        "items without metadata (they stay)": Removed(items=len(reviewed) - len(items)),
    }
    data = Interactions(source.data_name, frame, items, instruction, removed, source.about, time.unit or "s")
    return without_duplicates(data)
