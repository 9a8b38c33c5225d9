"""Splits: which interactions are learned from, tuned on and judged by."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import polars
from pydantic import Field, model_validator

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import Interactions, SplitInteractions


class LeaveLastTwo(Component):
    """A user's last interaction is the test target, the one before it the validation target, all others train.

    Users with fewer than 3 interactions only train. Interactions of equal time are ordered at random: file order is
    often catalogue order, from which a model could guess the target.
    """

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """Returns the division; the seed orders interactions of equal time."""
        count = polars.len().over("user")
        from_end = count - polars.int_range(polars.len()).over("user")
        wanted = {"training": (count < 3) | (from_end > 2), "validation": from_end == 2, "test": from_end == 1}
        return _divided(data.frame, seed, wanted)


class Temporal(Component):
    """Two points in time, the same for all users: what lies before the first trains, and targets lie after them.

    The test target is a user's last interaction, or the first, at or after the second point; its history is all that
    precedes it, also what came after the first point and was not learned from. The validation target is the first
    interaction between the two points of a user who has training interactions: it follows directly upon the sequence
    that validation predicts from. Users with nothing before their target, and those without an interaction after the
    second point, are not judged. Interactions of equal time are ordered at random, as in `leave-last-two`.

    Source: Gusak et al., Time to Split, RecSys 2025; Ji et al., TOIS 2023.
    """

    validation_from: float = Field(default=0.8, gt=0, lt=1)
    """Share of all interactions that lie before the first point; those of equal time all lie after it."""
    test_from: float = Field(default=0.9, gt=0, lt=1)
    """Share of all interactions that lie before the second point."""
    target: Literal["last", "first"] = "last"
    """Which of a user's interactions after the second point is the test target."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.validation_from >= self.test_from:
            raise ValueError(
                f"validation_from = {self.validation_from} must lie below test_from = {self.test_from}; lower it"
            )
        return self

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """Returns the division; the seed orders interactions of equal time. Raises UserError if there are no times."""
        if data.time_unit is None:
            raise UserError(
                f"{data.name} has positions, not times, so '{self.use}' cannot split it; "
                "name a column of times in source.timestamp or use the split leave-last-two"
            )
        times = data.frame["timestamp"].sort()
        first, second = (int(times[int(share * len(times))]) for share in (self.validation_from, self.test_from))
        time, position = polars.col("timestamp"), polars.int_range(polars.len()).over("user")
        learned, later = (time < first).sum().over("user"), (time >= second).sum().over("user")
        earlier = polars.len().over("user") - later
        target = earlier if self.target == "first" else earlier + later - 1
        # Also an earlier interaction after the second point is a history.
        judged = (later > 0) & (target > 0)
        history = polars.when(judged).then(target).otherwise(earlier)
        wanted = {
            "training": position < learned,
            "validation": (position == learned) & (learned > 0) & (position < earlier),
            "between": position < history,
            "test": judged & (position == target),
        }
        return _divided(data.frame, seed, wanted)


def _divided(frame: polars.DataFrame, seed: int, wanted: dict[str, polars.Expr]) -> SplitInteractions:
    """Each row goes to the first part that wants it, and to `after` if none does.

    Conditions see each user's rows in the order of time, those of equal time in random order.
    """
    # Drawn by row, not by item, so that exchanging held-out items moves no training row.
    shuffled = np.random.default_rng(seed).permutation(frame.height)
    # The order of users does not matter if each one's rows are together, and numbers are quicker to compare than keys.
    number = polars.col("user").cast(polars.Categorical).to_physical()
    ordered = frame.with_columns(number.alias("_number"), polars.Series("_tie", shuffled))
    ordered = ordered.sort("_number", "timestamp", "_tie").drop("_number", "_tie")
    names = [polars.when(condition).then(polars.lit(name)) for name, condition in wanted.items()]
    placed = ordered.with_columns(polars.coalesce(*names, polars.lit("after")).alias("_part"))
    parts = ("training", "validation", "test", "between", "after")
    return SplitInteractions(**{name: placed.filter(polars.col("_part") == name).drop("_part") for name in parts})
