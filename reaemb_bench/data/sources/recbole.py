"""Atomic files, the format of RecBole (Zhao et al., CIKM 2021): tab-separated, each column's type in the header."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar

import polars
from pydantic import Field as Setting

from reaemb_bench.core.component import NotHashed
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests, is_file
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import SCHEMA, About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.lines import MALFORMED_LIMIT, BadLines, Field, MalformedLimit, lines, read_delimited
from reaemb_bench.data.published_split import PART, PARTS
from reaemb_bench.data.sources import FileSource, split_files
from reaemb_bench.data.sources.table import OptionalColumn, attribute_labels, interactions_frame, require_column
from reaemb_bench.data.text import as_text, plain_text, readable

_TYPES = ("token", "token_seq", "float", "float_seq")


class Atomic(FileSource):
    """A pair of atomic files, `NAME.inter` and `NAME.item`; column names are settings, types stand in the files.

    A split that was published as `NAME.train.inter`, `NAME.valid.inter` and `NAME.test.inter` is read for the split
    `published`. token_seq and float_seq become lists, except in the title and in `texts`. Items without a line of
    their own keep their interactions and are called by their key.
    """

    version: ClassVar[int] = 2
    about: ClassVar[About] = About(
        "https://recbole.io/dataset_list.html",
        "that of the data set which was brought into this form",
        "Wayne Xin Zhao et al. (2021). RecBole: Towards a Unified, Comprehensive and Efficient Framework for "
        "Recommendation Algorithms. CIKM. https://doi.org/10.1145/3459637.3482016",
        download="by hand",
    )

    path: Annotated[Path, NotHashed("fingerprint hashes the two files in it that are read")]
    """The file NAME.inter or NAME.train.inter, next to which NAME.item lies, or a folder that holds one such pair."""
    name: str = ""
    """Name of the data set in tables; empty takes NAME."""
    user: str = "user_id"
    """Column of the user's key, a token."""
    item: str = "item_id"
    """Column of the item's key in both files, a token."""
    timestamp: OptionalColumn = "timestamp"
    """Column of the time, a float; empty takes the order of the file."""
    rating: OptionalColumn = ""
    """Column of the rating, a float; empty if there is none."""
    title: OptionalColumn = "title"
    """Column of the item's title; empty if there is none."""
    attributes: tuple[str, ...] = ()
    """Further columns of the items that prompts may show, in order. Leave out what only the future knew."""
    texts: tuple[str, ...] = ()
    """Those attributes of type token_seq that are running text, such as a description, and no list."""
    sequence_separator: str = Setting(default=" ", min_length=1)
    """What stands between the elements of token_seq and float_seq."""
    instruction: str = "The item has the following attributes:"
    """Line before an item's attributes."""
    malformed_limit: MalformedLimit = MALFORMED_LIMIT

    @property
    def data_name(self) -> str:
        """The name in tables."""
        return self.name or self._pair[1].stem

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of all files, or the first that is missing."""
        interactions, items = self._pair
        return file_digests({**(split_files(interactions) or {"interactions": interactions}), "items": items})

    @property
    def _pair(self) -> tuple[Path, Path]:
        """The two files, even if they are missing; a folder without a pair is taken for a missing NAME.inter."""
        file = self.path
        if file.is_dir():
            files = sorted(file.glob("*.inter"))
            # Of three parts the first stands for all.
            files = [part for part in files if not part.name.endswith((".valid.inter", ".test.inter"))]
            if len(files) > 1:
                names = ", ".join(candidate.name for candidate in files)
                raise UserError(f"{file} holds several interaction files ({names}); set source.path to one of them")
            file = files[0] if files else file / f"{file.name}.inter"
        return file, file.with_name(f"{file.name.removesuffix('.inter').removesuffix('.train')}.item")

    def read(self, machine: Machine) -> Interactions:
        """Returns all interactions and item attributes. Raises UserError naming file, column and cure."""
        interactions, descriptions = self._pair
        bad_items = BadLines(descriptions, self.malformed_limit)
        kinds = {"timestamp": Field("decimal", required=True), "rating": Field("number")}
        columns = {role: getattr(self, role) for role in SCHEMA if role not in kinds or getattr(self, role)}
        removed: dict[str, Removed] = {}
        frames = []
        for part, file in (split_files(interactions) or {"": interactions}).items():
            types = _types(file)
            for role, column in columns.items():
                _require(file, types, column, role, "float" if role in kinds else "token")
            fields = {column: kinds.get(role, Field("text", required=True)) for role, column in columns.items()}
            bad_rows = BadLines(file, self.malformed_limit)
            read = read_delimited(file, tuple(types), fields, "\t", True, bad_rows)
            removed |= bad_rows.removed("interactions")
            frames.append(read.with_columns(polars.lit(part, polars.Enum([*PARTS])).alias(PART)) if part else read)
        # Together, because the unit of times is told by the largest.
        read = polars.concat(frames)
        frame, unit = interactions_frame(interactions, {role: read[column] for role, column in columns.items()})
        if PART in read.columns:
            frame = frame.with_columns(read[PART])

        types = _types(descriptions)
        _require(descriptions, types, self.item, "item", "token")
        labels = attribute_labels(descriptions, types, self.title, self.attributes)
        items: dict[str, Attributes] = {}
        repeated = 0
        for number, line in lines(descriptions):
            if number == 1:
                continue
            with bad_items.line(number):
                cells = line.decode("utf-8").split("\t")
                if len(cells) != len(types):
                    raise ValueError(f"{'fewer' if len(cells) < len(types) else 'more'} fields than {len(types)}")
                row = dict(zip(types, map(str.strip, cells), strict=True))
                if not row[self.item]:
                    raise ValueError(f"no '{self.item}'")
                attributes = {label: self._value(name, types[name], row[name]) for label, name in labels.items()}
                repeated += row[self.item] in items
                items.setdefault(row[self.item], attributes)
        removed |= {
            **bad_items.removed("items"),
            "repeated items": Removed(items=repeated),
        }
        data = Interactions(self.data_name, frame, items, self.instruction, removed, self.about, unit)
        return without_duplicates(data)

    def _value(self, column: str, kind: str, cell: str) -> str | list[str]:
        """A cell as its type asks for. Raises ValueError if a number is none."""
        if column == self.title or column in self.texts:
            return plain_text(cell)
        if kind == "token":
            return readable(cell)
        if kind == "float":
            return _number(cell, column) if cell else ""
        parts = [part.strip() for part in cell.split(self.sequence_separator) if part.strip()]
        return [plain_text(part) if kind == "token_seq" else _number(part, column) for part in parts]


def _types(file: Path) -> dict[str, str]:
    """Column -> type, from the first line of an atomic file. Raises UserError if it is not a header."""
    if not is_file(file):
        raise UserError(
            f"there is no file {file} (setting source.path); name the file NAME.inter, next to which NAME.item lies"
        )
    with file.open("rb") as stream:
        line = stream.readline().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\r\n")
    types: dict[str, str] = {}
    for cell in line.split("\t"):
        column, _, kind = cell.partition(":")
        if not column or kind not in _TYPES or column in types:
            raise UserError(
                f"{file}, line 1: '{cell[:80]}' is not a column with a type, such as user_id:token; "
                f"correct it: tabs stand between columns, each occurs once, types are {', '.join(_TYPES)}"
            )
        types[column] = kind
    return types


def _require(file: Path, types: dict[str, str], column: str, setting: str, kind: str) -> None:
    """Raises UserError if there is no such column or if it is not of this type."""
    require_column(file, types, column, f"source.{setting}")
    if types[column] != kind:
        raise UserError(
            f"{file}, column '{column}' (setting source.{setting}) is of type {types[column]} and not {kind}; "
            "name another column"
        )


def _number(cell: str, column: str) -> str:
    with suppress(ValueError):
        if math.isfinite(number := float(cell)):
            return as_text(number)
    raise ValueError(f"'{column}' is not a number")
