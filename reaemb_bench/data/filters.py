"""Filters: take rows away and count how many."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from reaemb_bench.component import Component
from reaemb_bench.data.interactions import Interactions
from reaemb_bench.errors import UserError

if TYPE_CHECKING:
    import polars


class DropUsersOfRareItems(Component):
    """Drop users with few interactions and users who hold a rare item, until neither is left.

    This is the filter behind the ReaEmb paper's data sets. It is no k-core: one rare item costs the whole user, where
    `k-core` would only take the item away.
    """

    user_minimum: int = Field(default=5, ge=1)
    """Interactions that a user needs."""
    item_minimum: int = Field(default=3, ge=1)
    """Interactions that every item of a user needs."""

    def apply(self, data: Interactions) -> Interactions:
        """The rows of the users that remain."""
        import polars

        def round_(frame: polars.DataFrame) -> polars.DataFrame:
            # Window functions do not nest, so the item counts become a column first.
            counted = frame.with_columns(polars.len().over("item").alias("_held"))
            enough = polars.col("_held").min().over("user") >= self.item_minimum
            return counted.filter(enough & (polars.len().over("user") >= self.user_minimum)).drop("_held")

        return data.keep(_until_stable(data.frame, round_), self.use)


class KCore(Component):
    """Drop items and users with few interactions, until all that remain have enough."""

    user_minimum: int = Field(default=5, ge=1)
    """Interactions that a user needs."""
    item_minimum: int = Field(default=5, ge=1)
    """Interactions that an item needs."""

    def apply(self, data: Interactions) -> Interactions:
        """The rows between the users and items that remain."""
        import polars

        def round_(frame: polars.DataFrame) -> polars.DataFrame:
            user_stays = polars.len().over("user") >= self.user_minimum
            return frame.filter(user_stays & (polars.len().over("item") >= self.item_minimum))

        return data.keep(_until_stable(data.frame, round_), self.use)


class MinimumRating(Component):
    """Drop interactions with a low rating; those without a rating go too."""

    minimum: float = 3.0
    """Lowest rating that stays."""

    def apply(self, data: Interactions) -> Interactions:
        """The rows rated well enough."""
        import polars

        if data.frame["rating"].null_count() == data.frame.height > 0:
            raise UserError(
                f"{data.name} has no ratings to filter by; drop the filter '{self.use}' or name its rating column"
            )
        return data.keep(data.frame.filter(polars.col("rating") >= self.minimum), self.use)


def _until_stable(frame: polars.DataFrame, once: Callable[[polars.DataFrame], polars.DataFrame]) -> polars.DataFrame:
    while (smaller := once(frame)).height < frame.height:
        frame = smaller
    return frame
