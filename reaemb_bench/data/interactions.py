"""Interactions of users with items, before and after they are split into training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars

Attributes = dict[str, str | list[str]]
"""An item's attributes in the order in which a prompt names them; absent ones are empty, never left out."""

COLUMNS = ("user", "item", "timestamp", "rating")


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
    the same attribute names. instruction: the line before an item's attributes. removed: rows or items that were
    taken away, by reason. about: its home, licence and citation.
    """

    name: str
    frame: polars.DataFrame
    items: dict[str, Attributes]
    instruction: str
    removed: Mapping[str, int] = field(default_factory=dict)
    about: About = field(default_factory=About)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes that every item has, in order."""
        return tuple(next(iter(self.items.values()), ()))

    def keep(self, frame: polars.DataFrame, reason: str) -> Interactions:
        """The same data with fewer rows; what is gone is counted under `reason`."""
        gone = self.removed.get(reason, 0) + self.frame.height - frame.height
        return replace(self, frame=frame, removed={**self.removed, reason: gone})


@dataclass(frozen=True)
class SplitInteractions:
    """The same rows in three parts, each in the users' time order: columns as in Interactions.

    validation and test hold at most one row a user; a user may be in neither.
    """

    training: polars.DataFrame
    validation: polars.DataFrame
    test: polars.DataFrame


def without_duplicates(data: Interactions) -> Interactions:
    """Drop rows that repeat user, item and timestamp; the first of them stays, and so do later repeats of a pair."""
    kept = data.frame.unique(["user", "item", "timestamp"], keep="first", maintain_order=True)
    return data.keep(kept, "exact duplicates")
