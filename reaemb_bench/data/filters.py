"""Filters: take interactions away and count what is gone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Self

import polars
from pydantic import Field, model_validator

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import PER_SECOND, Interactions


class DropUsersOfRareItems(Component):
    """Drop users with few interactions and users who hold a rare item, until neither is left.

    The ReaEmb paper's data sets are filtered like this. It is not a k-core: one rare item costs the whole user, while
    `k-core` would only take the item away.
    """

    user_minimum: int = Field(default=5, ge=1)
    """Interactions that a user needs."""
    item_minimum: int = Field(default=3, ge=1)
    """Interactions that every item of a user needs."""

    def apply(self, data: Interactions) -> Interactions:
        """Returns the rows of the users that remain."""
        frame, before = data.frame, -1
        while before != frame.height:
            before = frame.height
            # Window functions do not nest, so the item counts become a column first.
            counted = frame.with_columns(polars.len().over("item").alias("_held"))
            enough = polars.col("_held").min().over("user") >= self.item_minimum
            frame = counted.filter(enough & (polars.len().over("user") >= self.user_minimum)).drop("_held")
        return data.keep(frame, self.use)


class DropRepeats(Component):
    """Drop a user's interactions with an item that the user already has; without this filter they stay.

    Repeats are easy targets: whether methods may recommend what was bought already is for the data to say.
    """

    consecutive: bool = False
    """Whether only those go that follow directly upon an interaction with the same item."""

    def apply(self, data: Interactions) -> Interactions:
        """Returns each user's first interaction with each item, or with each in a row; of equal times, the file's."""
        ordered = data.frame.with_row_index("_row").sort("timestamp", maintain_order=True)
        if self.consecutive:
            kept = ordered.filter((polars.col("item") != polars.col("item").shift()).fill_null(True).over("user"))
        else:
            kept = ordered.unique(["user", "item"], keep="first", maintain_order=True)
        return data.keep(kept.sort("_row").drop("_row"), self.use)


class KCore(Component):
    """Drop items and users with few interactions, until all that remain have enough."""

    user_minimum: int = Field(default=5, ge=1)
    """Interactions that a user needs."""
    item_minimum: int = Field(default=5, ge=1)
    """Interactions that an item needs."""

    def apply(self, data: Interactions) -> Interactions:
        """Returns the rows between the users and items that remain."""
        enough = polars.len().over("user") >= self.user_minimum
        enough &= polars.len().over("item") >= self.item_minimum
        frame, before = data.frame, -1
        while before != frame.height:
            before, frame = frame.height, frame.filter(enough)
        return data.keep(frame, self.use)


class Limit(Component):
    """Keep a small part of the data, for a smoke run: its numbers say nothing of the whole."""

    users: int = Field(default=100, ge=1)
    """Most users that stay: those with the most interactions with these items."""
    items: int = Field(default=100, ge=1)
    """Most items that stay: those with the most interactions."""
    history: int = Field(default=6, ge=1)
    """Most interactions of a user that stay: the newest."""

    def apply(self, data: Interactions) -> Interactions:
        """Returns these rows; of equal counts, the first keys stay."""
        frame = data.frame.with_row_index("_row")
        for column, count in (("item", self.items), ("user", self.users)):
            most = frame.group_by(column).len().sort(["len", column], descending=[True, False]).head(count)
            frame = frame.filter(polars.col(column).is_in(most[column].implode()))
        newest = frame.sort("timestamp", maintain_order=True).group_by("user", maintain_order=True).tail(self.history)
        return data.keep(newest.sort("_row").drop("_row"), self.use)


class MinimumRating(Component):
    """Drop interactions with a low rating; those without a rating go too."""

    minimum: float = 3.0
    """Lowest rating that stays."""

    def apply(self, data: Interactions) -> Interactions:
        """Returns the rows rated well enough. Raises UserError if no row has a rating."""
        if data.frame["rating"].null_count() == data.frame.height > 0:
            raise UserError(
                f"{data.name} has no ratings to filter by; drop the filter '{self.use}' or name its rating column"
            )
        return data.keep(data.frame.filter(polars.col("rating") >= self.minimum), self.use)


class Years(Component):
    """Keep the interactions of some calendar years, in UTC."""

    first: int | None = Field(default=None, ge=1970, le=2200)
    """First year that stays; nothing for all before `last`."""
    last: int | None = Field(default=None, ge=1970, le=2200)
    """Last year that stays; nothing for all after `first`."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first is not None and self.last is not None and self.last < self.first:
            raise ValueError(f"last = {self.last} lies before first = {self.first}; exchange them")
        return self

    def apply(self, data: Interactions) -> Interactions:
        """Returns the rows of these years. Raises UserError if timestamps are positions."""
        if data.frame.is_empty():
            return data.keep(data.frame, self.use)
        if data.time_unit is None:
            raise UserError(
                f"{data.name} has positions, not times, so no year is known; "
                f"drop the filter '{self.use}' or name a column of times in source.timestamp"
            )
        per_second = PER_SECOND[data.time_unit]

        def start(year: int) -> int:
            return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * per_second

        stays = polars.lit(True)
        if self.first is not None:
            stays &= polars.col("timestamp") >= start(self.first)
        if self.last is not None:
            stays &= polars.col("timestamp") < start(self.last + 1)
        return data.keep(data.frame.filter(stays), self.use)
