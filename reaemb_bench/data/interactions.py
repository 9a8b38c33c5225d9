"""Interactions of users with items, before and after they are split into training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import polars

Attributes = dict[str, str | list[str]]
"""An item's attributes in the order in which a prompt names them; absent ones are empty, never left out."""

SCHEMA = {"user": polars.String, "item": polars.String, "timestamp": polars.Int64, "rating": polars.Float64}
"""Columns of a frame of interactions."""

TimeUnit = Literal["s", "ms", "us", "ns"]
PER_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_PARTS = 8
FIRST_SECOND, LAST_SECOND = 10**8, 10**11 - 1
"""Plausible times of an interaction: March 1973 to the year 5138. A smaller number is a position, or no time."""


def unit_of(largest: float) -> TimeUnit | None:
    """Returns the unit of times of which this is the largest, or None if it is a position: a number below 10^8."""
    units = reversed(PER_SECOND.items())
    return next((unit for unit, per_second in units if largest >= FIRST_SECOND * per_second), None)


class Removed(NamedTuple):
    """How much was taken away: interactions, users who have none left, items that have none left."""

    interactions: int = 0
    users: int = 0
    items: int = 0

    def __str__(self) -> str:
        """`1,203 interactions, 88 users, 40 items`, without what is 0."""
        return ", ".join(f"{count:,} {name}" for name, count in self._asdict().items() if count) or "nothing"


@dataclass(frozen=True)
class About:
    """Where a data set comes from and on what terms: text for readers, not part of any result.

    download: how much is downloaded. minutes: what download at 10 MB/s and reading take on one core, about.
    """

    home: str = ""
    licence: str = ""
    citation: str = ""
    download: str = ""
    minutes: str = ""

    def terms(self) -> dict[str, str]:
        """Home, licence and citation, as far as the source states them."""
        return {
            "home": self.home or "not stated",
            "licence": self.licence or "not stated; find out before you pass the data on",
            "citation": self.citation or "not stated",
        }


@dataclass(frozen=True)
class Interactions:
    """What a source returns and filters pass on.

    frame: one row an interaction with the columns of SCHEMA; timestamp orders rows in time, rating is null if the
    source has none. items: item key -> attributes, the title first if there is one; all items have the same attribute
    names. instruction: the line before an item's attributes. removed: what was taken away, by reason. about: home,
    licence and citation. unit: that of the timestamps if the source knows it; "position" if they only order rows.
    """

    name: str
    frame: polars.DataFrame
    items: dict[str, Attributes]
    instruction: str
    removed: Mapping[str, Removed] = field(default_factory=dict)
    about: About = field(default_factory=About)
    unit: TimeUnit | Literal["position", "unknown"] = "unknown"

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes that every item has, in order."""
        return tuple(next(iter(self.items.values()), ()))

    @property
    def time_unit(self) -> TimeUnit | None:
        """The unit of the timestamps, counted from 1970 in UTC, or None for positions.

        If the source does not say, the largest timestamp tells: see `unit_of`.
        """
        if self.unit == "unknown":
            largest = self.frame["timestamp"].max()
            return unit_of(largest) if isinstance(largest, int) else None
        return None if self.unit == "position" else self.unit

    def keep(self, frame: polars.DataFrame, reason: str) -> Interactions:
        """Returns the same data with the rows of `frame` alone; what is gone is counted under `reason`."""
        rows = self.frame.height - frame.height
        users, items = (self.frame[key].n_unique() - frame[key].n_unique() if rows else 0 for key in ("user", "item"))
        before = self.removed.get(reason, Removed())
        gone = Removed(before.interactions + rows, before.users + users, before.items + items)
        return replace(self, frame=frame, removed={**self.removed, reason: gone})


def without_duplicates(data: Interactions) -> Interactions:
    """Drops rows that repeat user, item and timestamp and keeps the first of them."""
    row = ["user", "item", "timestamp"]
    suspects = data.frame.select(row).with_row_index("_row").filter(shares_values(data.frame, row))
    repeats = suspects.filter(~polars.struct(row).is_first_distinct())["_row"].cast(polars.Int64)
    kept = data.frame
    if len(repeats):
        kept = kept.filter(~polars.int_range(polars.len()).is_in(repeats.implode()))
    return data.keep(kept, "exact duplicates")


def shares_values(frame: polars.DataFrame, columns: list[str]) -> polars.Series:
    """Returns which rows (rows,) may have the same values of `columns` as another: all that do, and few that do not.

    Equal rows have equal hashes, and a sort of hashes, a part at a time, needs a fraction of the memory of groups of
    millions of rows.
    """
    hashes = frame.select(columns).hash_rows()
    shared = []
    for part in range(_PARTS):
        ordered = hashes.filter(hashes % _PARTS == part).sort()
        shared.append(ordered.filter(ordered == ordered.shift()).unique())
    return hashes.is_in(polars.concat(shared).implode())


@dataclass(frozen=True)
class SplitInteractions:
    """The same rows in parts, each in the users' time order: columns as in Interactions.

    validation and test hold at most one row a user; a user may be in neither. gap, between: further rows before the
    test, which the test history holds and nothing is learned from: after the user's training rows and before the
    validation row, and after that. after: rows that no step reads: what follows a test target, and test rows of users
    who have no history. dropped: the same before the target; the leak test leaves their items as they are.
    """

    training: polars.DataFrame
    validation: polars.DataFrame
    test: polars.DataFrame
    between: polars.DataFrame = field(default_factory=lambda: polars.DataFrame(schema=SCHEMA))
    after: polars.DataFrame = field(default_factory=lambda: polars.DataFrame(schema=SCHEMA))
    gap: polars.DataFrame = field(default_factory=lambda: polars.DataFrame(schema=SCHEMA))
    dropped: polars.DataFrame = field(default_factory=lambda: polars.DataFrame(schema=SCHEMA))
