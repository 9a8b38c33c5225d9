"""Atomic files, the format of RecBole (Zhao et al., CIKM 2021): tab-separated, each column's type in the header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field as Setting

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About, Attributes, Interactions, Removed, without_duplicates
from reaemb_bench.data.json_lines import MALFORMED_LIMIT, Field, Malformed
from reaemb_bench.data.sources.table import OptionalColumn
from reaemb_bench.data.tables import Sheet, as_text, order_in_time, read_delimited

if TYPE_CHECKING:
    import polars


_TYPES = ("token", "token_seq", "float", "float_seq")


@dataclass(frozen=True)
class Header:
    """The first line of an atomic file: column -> type, in the order of the columns."""

    file: Path
    types: Mapping[str, str]

    def require(self, column: str, setting: str, wanted: tuple[str, ...] = _TYPES) -> None:
        """Raise UserError where there is no such column or its type is none of the wanted ones."""
        Sheet(self.file, tuple(self.types), []).require(column, setting)
        if self.types[column] not in wanted:
            raise UserError(
                f"{self.file}, column '{column}' (setting {setting}) is of type {self.types[column]} "
                f"and not {' or '.join(wanted)}; name another column"
            )


class Atomic(Component):
    """A pair of atomic files, `NAME.inter` and `NAME.item`; column names are settings, types stand in the files.

    token_seq and float_seq become lists, except in the title and in `texts`. Items without a line of their own keep
    their interactions and are called by their key.
    """

    about: ClassVar[About] = About(
        home="https://recbole.io/dataset_list.html",
        licence="that of the data set which was brought into this form",
        citation=(
            "Wayne Xin Zhao et al. (2021). RecBole: Towards a Unified, Comprehensive and Efficient Framework for "
            "Recommendation Algorithms. CIKM. https://doi.org/10.1145/3459637.3482016"
        ),
    )

    path: Path
    """The file NAME.inter, beside which NAME.item lies, or a folder that holds one such pair."""
    name: str = ""
    """Name of the data set in tables; empty takes NAME."""
    user: str = "user_id"
    """Column of the user's key, a token."""
    item: str = "item_id"
    """Column of the item's key in both files, a token."""
    timestamp: OptionalColumn = "timestamp"
    """Column of the time, a float; empty takes the order of the file."""
    rating: OptionalColumn = ""
    """Column of the rating, a float; empty where there is none."""
    title: OptionalColumn = "title"
    """Column of the item's title; empty where there is none."""
    attributes: tuple[str, ...] = ()
    """Further columns of the items that prompts may show, in order. Leave out what only the future knew."""
    texts: tuple[str, ...] = ()
    """Those attributes of type token_seq that are running text, such as a description, and no list."""
    sequence_separator: str = Setting(default=" ", min_length=1)
    """What stands between the elements of token_seq and float_seq."""
    instruction: str = "The item has the following attributes:"
    """Line before an item's attributes."""
    malformed_limit: int = Setting(default=MALFORMED_LIMIT, ge=0)
    """Malformed lines that are tolerated in each file; they are counted and left out."""

    def identity(self) -> dict[str, Any]:
        """Settings and contents, not places: the same files in another folder are the same data."""
        return {**super().identity(), "path": "", "name": self.name or self._pair[0].stem}

    def fingerprint(self) -> dict[str, Any]:
        """The sha256 of both files, or the first that is missing: a plan can be drawn up without the data."""
        interactions, items = self._pair
        return file_digests({"interactions": interactions, "items": items})

    def read(self, machine: Machine) -> Interactions:
        """All interactions and item attributes. Raises UserError naming file, column and cure."""
        interactions, items = self._pair
        broken = {file: Malformed(file, self.malformed_limit) for file in self._pair}
        frame = self._frame(_header(interactions), broken[interactions])
        things, repeated = self._items(_header(items), broken[items])
        removed = {
            **broken[interactions].removed("interactions"),
            **broken[items].removed("items"),
            "repeated items": Removed(items=repeated),
        }
        name = self.name or interactions.stem
        return without_duplicates(Interactions(name, frame, things, self.instruction, removed, self.about))

    @property
    def _pair(self) -> tuple[Path, Path]:
        """The two files, whether they are there or not; a folder without a pair is taken for a missing NAME.inter."""
        file = self.path
        if file.is_dir():
            found = sorted(file.glob("*.inter"))
            if len(found) > 1:
                names = ", ".join(each.name for each in found)
                raise UserError(f"{file} holds several interaction files ({names}); set source.path to one of them")
            file = found[0] if found else file / f"{file.name}.inter"
        return file, file.with_suffix(".item")

    def _frame(self, header: Header, malformed: Malformed) -> polars.DataFrame:
        import polars

        header.require(self.user, "source.user", ("token",))
        header.require(self.item, "source.item", ("token",))
        wanted = {self.user: Field("text", required=True), self.item: Field("text", required=True)}
        for setting, column in (("timestamp", self.timestamp), ("rating", self.rating)):
            if column:
                header.require(column, f"source.{setting}", ("float",))
                wanted[column] = Field("number", required=setting == "timestamp")
        frame = read_delimited(header.file, tuple(header.types), wanted, "\t", True, malformed)
        times = polars.int_range(frame.height, dtype=polars.Int64, eager=True)
        ratings = polars.repeat(None, frame.height, dtype=polars.Float64, eager=True)
        return polars.DataFrame(
            {
                "user": frame[self.user],
                "item": frame[self.item],
                "timestamp": order_in_time(frame[self.timestamp], header.file) if self.timestamp else times,
                "rating": frame[self.rating] if self.rating else ratings,
            }
        )

    def _items(self, header: Header, malformed: Malformed) -> tuple[dict[str, Attributes], int]:
        header.require(self.item, "source.item", ("token",))
        labels = self._labels()
        for label, column in labels.items():
            header.require(column, "source.title" if label == "title" else "source.attributes")
        items: dict[str, Attributes] = {}
        repeated = 0
        with header.file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if number == 1 or not line.strip():
                    continue
                try:
                    row = _row(line, header)
                    key = _key(row[self.item], self.item)
                    attributes = {label: self._value(header, column, row[column]) for label, column in labels.items()}
                except ValueError as error:
                    malformed.add(number, "not in UTF-8" if isinstance(error, UnicodeError) else str(error))
                    continue
                repeated += key in items
                items.setdefault(key, attributes)
        return items, repeated

    def _labels(self) -> dict[str, str]:
        """Attribute name -> column."""
        if self.title != "title" and "title" in self.attributes:
            raise UserError("source.attributes holds the column 'title'; set source.title to it")
        columns = self.attributes if self.title in self.attributes else (self.title, *self.attributes)
        return {"title" if column == self.title else column: column for column in columns if column}

    def _value(self, header: Header, column: str, cell: str) -> str | list[str]:
        kind = header.types[column]
        if kind == "token" or column == self.title or column in self.texts:
            return cell.strip()
        if kind == "float":
            return _number(cell, column) if cell.strip() else ""
        parts = [part for each in cell.split(self.sequence_separator) if (part := each.strip())]
        return parts if kind == "token_seq" else [_number(part, column) for part in parts]


def _header(file: Path) -> Header:
    if not file.is_file():
        raise UserError(
            f"there is no file {file} (setting source.path); name the file NAME.inter beside which NAME.item lies"
        )
    with file.open("rb") as stream:
        line = stream.readline().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\r\n")
    types: dict[str, str] = {}
    for cell in line.split("\t"):
        column, _, kind = cell.partition(":")
        if not column or kind not in _TYPES or column in types:
            raise UserError(
                f"{file}, line 1: '{cell[:80]}' is no column with a type, such as user_id:token; "
                f"correct it: tabs stand between columns, each occurs once, types are {', '.join(_TYPES)}"
            )
        types[column] = kind
    return Header(file, types)


def _row(line: bytes, header: Header) -> dict[str, str]:
    cells = line.decode("utf-8").rstrip("\r\n").split("\t")
    if len(cells) != len(header.types):
        raise ValueError(f"{'fewer' if len(cells) < len(header.types) else 'more'} fields than {len(header.types)}")
    return dict(zip(header.types, cells, strict=True))


def _key(cell: str, column: str) -> str:
    if not cell.strip():
        raise ValueError(f"no '{column}'")
    return cell.strip()


def _number(cell: str, column: str) -> str:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{column}' is no number")
    return as_text(number)
