"""Interactions of users with items, before and after they are split into training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import polars


Attributes = dict[str, str | list[str]]
"""An item's attributes in the order in which a prompt names them; absent ones are empty, never left out."""

COLUMNS = ("user", "item", "timestamp", "rating")

TimeUnit = Literal["s", "ms", "us", "ns"]

_UNITS: tuple[tuple[int, TimeUnit], ...] = ((10**17, "ns"), (10**14, "us"), (10**11, "ms"), (10**8, "s"))
"""The unit of timestamps by the least that the largest of them is; each of these lies in March 1973."""
LEAST_TIME = _UNITS[-1][0]


def least_alike(largest: float) -> int | None:
    """The least number that is taken for a time in the unit of `largest`, or None where that is a position."""
    return next((least for least, _ in _UNITS if largest >= least), None)


class Removed(NamedTuple):
    """How much was taken away: interactions, users who have none left, items that have none left."""

    interactions: int = 0
    users: int = 0
    items: int = 0

    def __str__(self) -> str:
        """`1,203 interactions, 88 users, 40 items`, what is 0 left out."""
        counts = [f"{count:,} {name}" for name, count in self._asdict().items() if count]
        return ", ".join(counts) or "nothing"


@dataclass(frozen=True)
class About:
    """Where a data set comes from and on what terms: text for people, no part of any result."""

    home: str = ""
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True)
class Interactions:
    """What a source gives and filters pass on.

    frame: columns user (str), item (str), timestamp (Int64, order in time) and rating (Float64, null where the source
    has none), one row an interaction. items: item key -> attributes, title first where there is one; all items carry
    the same attribute names. instruction: the line before an item's attributes. removed: what was taken away, by
    reason. about: its home, licence and citation.
    """

    name: str
    frame: polars.DataFrame
    items: dict[str, Attributes]
    instruction: str
    removed: Mapping[str, Removed] = field(default_factory=dict)
    about: About = field(default_factory=About)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes that every item has, in order."""
        return tuple(next(iter(self.items.values()), ()))

    @cached_property
    def time_unit(self) -> TimeUnit | None:
        """The unit of the timestamps, counted from 1970 in UTC, or None where they are mere positions.

        Positions are numbers below 10^8, which as seconds would all lie before April 1973.
        """
        largest = self.frame["timestamp"].max()
        return next((unit for least, unit in _UNITS if isinstance(largest, int) and largest >= least), None)

    def keep(self, frame: polars.DataFrame, reason: str) -> Interactions:
        """The same data with fewer rows; what is gone is counted under `reason`."""
        before = self.removed.get(reason, Removed())
        gone = Removed(*(earlier + now for earlier, now in zip(before, _lost(self.frame, frame), strict=True)))
        return replace(self, frame=frame, removed={**self.removed, reason: gone})


def _lost(before: polars.DataFrame, after: polars.DataFrame) -> Removed:
    rows = before.height - after.height
    if not rows:
        return Removed()
    users, items = (before[column].n_unique() - after[column].n_unique() for column in ("user", "item"))
    return Removed(rows, users, items)


def _no_rows() -> polars.DataFrame:
    import polars

    types = (polars.String, polars.String, polars.Int64, polars.Float64)
    return polars.DataFrame(schema=dict(zip(COLUMNS, types, strict=True)))


@dataclass(frozen=True)
class SplitInteractions:
    """The same rows in parts, each in the users' time order: columns as in Interactions.

    validation and test hold at most one row a user; a user may be in neither. between: further rows before the test,
    which the test history holds and nothing is learned from; they follow the user's training and validation rows.
    after: rows that no step reads: what follows a test target, and test rows of users who have no history.
    """

    training: polars.DataFrame
    validation: polars.DataFrame
    test: polars.DataFrame
    between: polars.DataFrame = field(default_factory=_no_rows)
    after: polars.DataFrame = field(default_factory=_no_rows)


def without_duplicates(data: Interactions) -> Interactions:
    """Drop rows that repeat user, item and timestamp; the first of them stays, and so do later repeats of a pair."""
    kept = data.frame.unique(["user", "item", "timestamp"], keep="first", maintain_order=True)
    return data.keep(kept, "exact duplicates")
