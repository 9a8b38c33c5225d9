"""The files that the authors of ReaEmb released: interactions already filtered and numbered, items as prompts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field as Setting

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests, real_path
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.json_lines import MALFORMED_LIMIT, Field, Malformed, read_lines
from reaemb_bench.data.sources.yelp import FROM_THE_FUTURE

if TYPE_CHECKING:
    import polars


_INSTRUCTION = "The item has the following attributes:"


class ReaEmbAuthors(Component):
    """The authors' `inter.txt` and `item_info.jsonline` (Yelp, CD, Games), which need no further filter.

    inter.txt: one "user item" a line, numbers from 1, each user's in time order, so the line's place is its time.
    item_info.jsonline: `input` holds the instruction, a line feed and `name is value; name is value; ...`; the item's
    number is `item_id`, else `id`, else the line's place, where no line has either. Attributes are taken from the
    prompts, where each value is already cut at 100 characters; an item that lacks one that others have has it empty.
    """

    about: ClassVar[About] = About(
        "https://github.com/mingyao-huang/ReaEmb",
        "no licence stated; made of Amazon Reviews 2023 and the Yelp Open Dataset, whose terms hold",
        "Harmonizing Semantic and Collaborative in LLMs: Reasoning-based Embedding Generator for Sequential "
        "Recommendation, arXiv 2606.16703, 2026",
    )

    interactions: Path
    """The file of interactions, `handled/inter.txt`."""
    items: Path
    """The file of items, `handled/item_info.jsonline`, plain or gzip."""
    name: str = ""
    """Name of the data set in tables; empty takes that of the folder that holds `handled`."""
    with_final_counts: bool = False
    """Also Yelp's stars, review_count and is_open, which are of the day of publication: the paper's prompts have them,
    and they tell how popular a business became after the interactions that are learned from."""
    malformed_limit: int = Setting(default=MALFORMED_LIMIT, ge=0)
    """Malformed lines of each file that are tolerated; they are counted and their numbers told."""

    def identity(self) -> dict[str, Any]:
        """Settings and contents, not places: the same files in another folder are the same data."""
        return {**super().identity(), "interactions": "", "items": "", "name": self.title}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files, or the first that is missing: a plan can be drawn up without the data."""
        return file_digests({"interactions": self.interactions, "items": self.items})

    @property
    def title(self) -> str:
        """The name in tables."""
        folder = Path(real_path(self.interactions)).parent
        return self.name or (folder.parent.name if folder.name == "handled" else folder.name)

    def read(self, machine: Machine) -> Interactions:
        """All interactions and items. Raises UserError naming file, lines and cure."""
        frame, removed = _pairs(self.interactions, self.malformed_limit)
        prompts, also = _prompts(self.items, self.malformed_limit)
        used = set(frame["item"].unique())
        written = {key: prompt for key, prompt in prompts.items() if key in used}
        if not written:
            raise UserError(f"no item of {self.interactions} (such as '{frame['item'][0]}') occurs in {self.items}")
        instruction = next(iter(written.values())).rpartition("\n")[0].strip() or _INSTRUCTION
        leave_out = () if self.with_final_counts else FROM_THE_FUTURE
        items = _alike({key: _attributes(prompt, leave_out) for key, prompt in written.items()})
        counted = {
            "metadata of items without interactions": Removed(items=len(prompts) - len(written)),
            "items without metadata (they stay)": Removed(items=len(used) - len(written)),
        }
        return without_duplicates(
            Interactions(self.title, frame, items, instruction, {**removed, **also, **counted}, self.about)
        )


def _pairs(file: Path, limit: int) -> tuple[polars.DataFrame, dict[str, Removed]]:
    import polars

    if not file.is_file():
        raise UserError(f"there is no file {file}; paths are relative to where you start the program")
    malformed = Malformed(file, limit)
    lines = polars.Series("line", file.read_text("utf-8-sig", errors="replace").split("\n"), polars.String)
    found = lines.str.extract_groups(r"^\s*(?<user>[1-9][0-9]*)\s+(?<item>[1-9][0-9]*)\s*$").struct.unnest()
    frame = found.with_row_index("timestamp")
    sound = frame.drop_nulls()
    for place in frame.filter(polars.col("user").is_null() & (lines.str.strip_chars() != ""))["timestamp"]:
        malformed.add(place + 1, "not two numbers from 1 on, user and item")
    if sound.is_empty():
        raise UserError(f"{file} has no lines; give the authors' file of interactions")
    rating = polars.lit(None, polars.Float64).alias("rating")
    return sound.select("user", "item", polars.col("timestamp").cast(polars.Int64), rating), malformed.removed(
        "interactions"
    )


def _prompts(file: Path, limit: int) -> tuple[dict[str, str], dict[str, Removed]]:
    """Item number -> prompt, the first where there are several."""
    import polars

    malformed = Malformed(file, limit)
    fields = {"input": Field("text", required=True), "item_id": Field("text"), "id": Field("text")}
    frames = list(read_lines(file, fields, malformed))
    if not frames:
        raise UserError(f"{file} has no lines; give the authors' file of items")
    frame = polars.concat(frames)
    numbers = frame["item_id"].fill_null(frame["id"])
    if numbers.null_count() == len(numbers):
        if malformed.count:
            raise UserError(
                f"{file}: without 'item_id' a line's place is the item's number, and lines {malformed.first} are "
                "malformed; correct them"
            )
        numbers = polars.Series(range(1, len(numbers) + 1)).cast(polars.String)
    prompts: dict[str, str] = {}
    for number, prompt in zip(numbers.str.strip_chars(), frame["input"], strict=True):
        if number is not None:
            prompts.setdefault(number, prompt)
    nameless = numbers.null_count()
    counted = {
        "metadata without item": Removed(items=nameless),
        "repeated metadata": Removed(items=len(numbers) - nameless - len(prompts)),
    }
    return prompts, {**malformed.removed("items"), **counted}


def _attributes(prompt: str, leave_out: tuple[str, ...]) -> Attributes:
    """The attributes of a prompt, its instruction left out; a business's name is its title."""
    found: dict[str, str] = {}
    last = ""
    for part in prompt.rpartition("\n")[2].split(";"):
        if named := re.match(r"\s*(\S+) is(?=\s|$)", part):
            last = "title" if named[1] == "name" else named[1]
            found[last] = part[named.end() :].strip()
        elif last and part.strip():
            found[last] += f". {part.strip()}"
    # What was empty was written as the word.
    return {
        name: "" if value.strip(", ") == "none" else value for name, value in found.items() if name not in leave_out
    }


def _alike(items: dict[str, Attributes]) -> dict[str, Attributes]:
    names = dict.fromkeys(name for attributes in items.values() for name in attributes)
    return {key: {name: attributes.get(name, "") for name in names} for key, attributes in items.items()}
