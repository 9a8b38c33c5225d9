"""Sources of two files of JSON lines, reviews and what is known of the reviewed: settings, rows and their items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field as Setting

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests
from reaemb_bench.data.interactions import About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.json_lines import MALFORMED_LIMIT, Field, Malformed, read_lines
from reaemb_bench.data.tables import keys

if TYPE_CHECKING:
    import polars


Line = dict[str, Any]


class ReviewFiles(Component):
    """The settings of sources that read one file of reviews and one of the reviewed items."""

    about: ClassVar[About] = About()

    reviews: Path
    """File of JSON lines with one review each, plain or gzip."""
    metadata: Path
    """File of JSON lines with one item each, plain or gzip."""
    name: str = ""
    """Name of the data set in tables; empty takes that of the file of reviews, without its suffixes."""
    malformed_limit: int = Setting(default=MALFORMED_LIMIT, ge=0)
    """Malformed lines of each file that are tolerated; they are counted and their numbers told."""

    def identity(self) -> dict[str, Any]:
        """Settings and contents, not places: the same files in another folder are the same data."""
        return {**super().identity(), "reviews": "", "metadata": "", "name": self.title}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files, or the first that is missing: a plan can be drawn up without the data."""
        return file_digests({"reviews": self.reviews, "metadata": self.metadata})

    @property
    def title(self) -> str:
        """The name in tables."""
        return self.name or self.reviews.name.split(".")[0]


@dataclass(frozen=True)
class Form:
    """How a publisher writes the two files.

    user, item, time, rating: the reviews' fields, the time as `moment` says. key: the metadata's field that holds the
    item. fields: the metadata's other fields. attributes: a line of metadata -> the item's attributes. literals: see
    `read_lines`.
    """

    user: str
    item: str
    time: str
    rating: str
    key: str
    fields: Mapping[str, Field]
    attributes: Callable[[Line], Attributes]
    instruction: str
    moment: Field
    literals: bool = False


def read_reviews(files: ReviewFiles, form: Form) -> Interactions:
    """All reviews and the attributes of the items among them.

    Raises UserError where a file is absent or not what the form says, or where the two do not belong together.
    """
    frame, removed = _rows(files, form)
    used = set(frame["item"].unique())
    items, also = _items(files, form, used)
    if not items:
        raise UserError(
            f"no item of {files.reviews} (field '{form.item}', such as '{frame['item'][0]}') occurs in "
            f"{files.metadata} (field '{form.key}'); take two files that belong together"
        )
    missing = {"items without metadata (they stay)": Removed(items=len(used) - len(items))}
    return without_duplicates(
        Interactions(files.title, frame, items, form.instruction, {**removed, **also, **missing}, files.about)
    )


def _rows(files: ReviewFiles, form: Form) -> tuple[polars.DataFrame, dict[str, Removed]]:
    import polars

    malformed = Malformed(files.reviews, files.malformed_limit)
    named = Field("text", required=True)
    fields = {form.user: named, form.item: named, form.time: form.moment, form.rating: Field("number")}
    parts, nameless = [], 0
    for read in read_lines(files.reviews, fields, malformed):
        columns = {"user": keys(read[form.user]), "item": keys(read[form.item])}
        frame = polars.DataFrame({**columns, "timestamp": read[form.time], "rating": read[form.rating]})
        kept = frame.drop_nulls(["user", "item"])
        nameless += frame.height - kept.height
        # Keys are kept once each, so that the rows of a large file stay small.
        parts.append(kept.cast({"user": polars.Categorical, "item": polars.Categorical}))
    if not sum(part.height for part in parts):
        raise UserError(f"{files.reviews} has no review with '{form.user}' and '{form.item}'; give a whole file")
    removed = {**malformed.removed("interactions"), "reviews without user or item": Removed(interactions=nameless)}
    return polars.concat(parts), removed


def _items(files: ReviewFiles, form: Form, used: set[str]) -> tuple[dict[str, Attributes], dict[str, Removed]]:
    malformed = Malformed(files.metadata, files.malformed_limit)
    items: dict[str, Attributes] = {}
    repeated = unused = 0
    for key, line in _lines_of_items(files, form, malformed):
        if key not in used:
            unused += 1
        elif key in items:
            repeated += 1
        else:
            items[key] = form.attributes(line)
    counted = {
        "metadata of items without reviews": Removed(items=unused),
        "repeated metadata": Removed(items=repeated),
    }
    return items, {**malformed.removed("items"), **counted}


def _lines_of_items(files: ReviewFiles, form: Form, malformed: Malformed) -> Iterator[tuple[str, Line]]:
    fields = {form.key: Field("text", required=True), **form.fields}
    for frame in read_lines(files.metadata, fields, malformed, form.literals):
        for line in frame.iter_rows(named=True):
            yield line.pop(form.key).strip(), line
