"""The files that the authors of ReaEmb released: interactions already filtered and numbered, items as prompts."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import ClassVar

import polars

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import real_path
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import SCHEMA, About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.lines import MALFORMED_LIMIT, BadLines, Field, MalformedLimit, lines, read_json_lines
from reaemb_bench.data.sources import FileSource
from reaemb_bench.data.sources.yelp import FROM_THE_FUTURE
from reaemb_bench.data.text import plain_text

_INSTRUCTION = "The item has the following attributes:"
_PAIR = re.compile(rb"\s*([1-9][0-9]*)\s+([1-9][0-9]*)\s*")


class ReaEmbAuthors(FileSource):
    """The authors' `inter.txt` and `item_info.jsonline` (Yelp, CD, Games), which need no further filter.

    inter.txt: one "user item" a line, numbers from 1, each user's in time order, so a line's number orders it in time.
    item_info.jsonline: `input` holds the instruction, a line feed and `name is value; name is value; ...`; the item's
    number is `item_id`, else `id`, else the line's number if no line has either. Attributes are taken from the
    prompts, where each value is already cut at 100 characters; an item without one that others have has it empty.
    """

    version: ClassVar[int] = 2
    about: ClassVar[About] = About(
        "https://github.com/mingyao-huang/ReaEmb",
        "no licence stated; made of Amazon Reviews 2023 and the Yelp Open Dataset, whose terms hold",
        "Harmonizing Semantic and Collaborative in LLMs: Reasoning-based Embedding Generator for Sequential "
        "Recommendation, arXiv 2606.16703, 2026",
        download="by hand",
    )

    interactions: Path
    """The file of interactions, `handled/inter.txt`."""
    items: Path
    """The file of items, `handled/item_info.jsonline`, plain or gzip."""
    name: str = ""
    """Name of the data set in tables; empty takes that of the folder that holds `handled`."""
    with_final_counts: bool = False
    """Also Yelp's stars, review_count and is_open of the day of publication: the paper's prompts have them, and they
    tell how popular a business became after the interactions that are learned from."""
    malformed_limit: MalformedLimit = MALFORMED_LIMIT

    @property
    def data_name(self) -> str:
        """The name in tables."""
        folder = Path(real_path(self.interactions)).parent
        return self.name or (folder.parent.name if folder.name == "handled" else folder.name)

    def read(self, machine: Machine) -> Interactions:
        """Returns all interactions and items. Raises UserError naming file, lines and cure."""
        bad_rows, bad_items = (BadLines(file, self.malformed_limit) for file in (self.interactions, self.items))
        rows = []
        for number, line in lines(self.interactions):
            with bad_rows.line(number):
                pair = _PAIR.fullmatch(line)
                if pair is None:
                    raise ValueError("not two numbers from 1 on, user and item")
                rows.append((pair[1].decode(), pair[2].decode(), number - 1, None))
        if not rows:
            raise UserError(f"{self.interactions} has no lines{bad_rows.hint}; give the authors' file of interactions")
        frame = polars.DataFrame(rows, schema=SCHEMA, orient="row")

        fields = {"input": Field("text", required=True), "item_id": Field("text"), "id": Field("text")}
        frames = list(read_json_lines(self.items, fields, bad_items))
        if not frames:
            raise UserError(f"{self.items} has no lines{bad_items.hint}; give the authors' file of items")
        written = polars.concat(frames)
        numbers = written["item_id"].fill_null(written["id"]).str.strip_chars()
        if numbers.null_count() == len(numbers):
            if bad_items.count:
                raise UserError(
                    f"{self.items}: without 'item_id' a line's number is the item's, and lines {bad_items.numbers} are "
                    "malformed; correct them"
                )
            numbers = polars.Series(range(1, len(numbers) + 1)).cast(polars.String)
        numbered = polars.DataFrame({"number": numbers, "prompt": written["input"]}).drop_nulls("number")
        # The first prompt of an item counts.
        prompts = dict(numbered.unique("number", keep="first", maintain_order=True).rows())

        used = set(frame["item"].unique())
        known = {key: prompt for key, prompt in prompts.items() if key in used}
        if not known:
            raise UserError(
                f"no item of {self.interactions} (such as '{frame['item'][0]}') occurs in {self.items}"
                f"{bad_items.hint}; take two files that belong together"
            )
        instruction = next(iter(known.values())).rpartition("\n")[0].strip() or _INSTRUCTION
        left_out = () if self.with_final_counts else FROM_THE_FUTURE
        read = {key: _attributes(prompt) for key, prompt in known.items()}
        names = dict.fromkeys(name for item in read.values() for name in item if name not in left_out)
        items: dict[str, Attributes] = {key: {name: item.get(name, "") for name in names} for key, item in read.items()}
        removed = {
            **bad_rows.removed("interactions"),
            **bad_items.removed("items"),
            "metadata without item": Removed(items=numbers.null_count()),
            "repeated metadata": Removed(items=numbered.height - len(prompts)),
            "metadata of items without interactions": Removed(items=len(prompts) - len(known)),
            "items without metadata (they stay)": Removed(items=len(used) - len(known)),
        }
        data = Interactions(self.data_name, frame, items, instruction, removed, self.about, unit="position")
        return without_duplicates(data)


def _attributes(prompt: str) -> dict[str, str]:
    """The attributes of a prompt without its instruction; a business's name is its title."""
    attributes: dict[str, str] = {}
    last = ""
    # Entities end in the character that separates attributes.
    for part in html.unescape(prompt.rpartition("\n")[2]).split(";"):
        if match := re.match(r"\s*(\S+) is(?=\s|$)", part):
            last = "title" if match[1] == "name" else match[1]
            attributes[last] = part[match.end() :].strip()
        elif last and part.strip():
            attributes[last] += f". {part.strip()}"
    # What was empty was written as the word none.
    return {name: "" if value.strip(", ") == "none" else plain_text(value) for name, value in attributes.items()}
