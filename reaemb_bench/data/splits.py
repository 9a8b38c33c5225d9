"""Splits: which interactions are learned from, tuned on and judged by."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, date, datetime
from typing import Annotated, Literal, Self

import numpy as np
import polars
from pydantic import BeforeValidator, Field, field_validator, model_validator

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import PER_SECOND, Interactions, SplitInteractions


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
        return divided(_ordered(data.frame, seed), wanted, data.frame.columns)


class LeaveLastOne(Component):
    """A user's last interaction is the test target; some users also have a validation target.

    These are drawn at random from the users with 3 interactions or more, and it is the interaction before the test
    target. So all others train on one
    interaction more than under `leave-last-two`. Users with a single interaction only train. Interactions of equal
    time are ordered at random, as in `leave-last-two`.

    Source: Petrov & Macdonald, gSASRec, RecSys 2023.
    """

    validation_users: int = Field(default=1024, ge=1)
    """Users with a validation target; fewer if fewer have 3 interactions."""

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """Returns the division; the seed draws the validation users and orders interactions of equal time."""
        long = _sorted(data.frame.group_by("user").len().filter(polars.col("len") > 2)["user"])
        drawn = long.gather(np.random.default_rng([seed, 1]).permutation(len(long))[: self.validation_users])
        count = polars.len().over("user")
        from_end = count - polars.int_range(polars.len()).over("user")
        validated = (from_end == 2) & polars.col("user").is_in(drawn.implode())
        test = (from_end == 1) & (count > 1)
        wanted = {"test": test, "validation": validated, "training": polars.lit(True)}
        return divided(_ordered(data.frame, seed), wanted, data.frame.columns)


class ColdItems(Component):
    """Some items, drawn at random, are never trained on; a user's last interaction with one of them is the test target.

    Only the text of such an item is known, so ids cannot answer. Its history is the user's other items before
    the target: rows of drawn items before it are dropped, and rows after it are not read. The last row of another item
    before it (for users without a test target, the last of all) is the validation target if one more is left to train
    on. Items stay candidates for each other, so the softmax of the objective `cross-entropy` pushes drawn items down:
    `trained-cross-entropy` leaves them out. If there are times, `temporal` with `target = "cold"` asks for items that
    were new at the time.
    """

    share: float = Field(default=0.1, gt=0, lt=1)
    """Share of all items that are drawn, at least one."""

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """Returns the division; the seed draws the items and orders interactions of equal time."""
        items = _sorted(data.frame["item"].unique())
        # Drawn from the keys alone, so that exchanging held-out items changes nothing of what is drawn.
        drawn = np.random.default_rng([seed, 1]).permutation(len(items))[: max(1, round(self.share * len(items)))]
        position, cold = polars.int_range(polars.len()), polars.col("_cold")
        frame = _ordered(data.frame, seed).with_columns(
            polars.col("item").is_in(items.gather(drawn).implode()).alias("_cold"), position.over("user").alias("_at")
        )
        at = polars.col("_at")
        frame = frame.with_columns(
            polars.when(cold).then(at).max().over("user").alias("_target"),
            polars.when(~cold).then(at).min().over("user").alias("_first"),
        )
        judged = (polars.col("_target") > polars.col("_first")).fill_null(False)
        frame = frame.with_columns(
            polars.when(judged).then(polars.col("_target")).otherwise(polars.len().over("user")).alias("_target")
        )
        before = ~cold & (at < polars.col("_target"))
        last = polars.when(before).then(at).max().over("user")
        wanted = {
            "test": at == polars.col("_target"),
            "validation": before & (at == last) & (last > polars.col("_first")),
            "training": before,
            "dropped": at < polars.col("_target"),
        }
        return divided(frame, wanted, data.frame.columns)


_Point = Annotated[
    float | str,
    BeforeValidator(lambda value: value.isoformat() if isinstance(value, date) else value),
]
"""A share of all interactions, or a date in UTC as ISO 8601 has it."""


class Temporal(Component):
    """Two points in time, the same for all users: what lies before the first trains, and targets lie after them.

    The test target is one of a user's interactions at or after the second point; its history is all that precedes it,
    also what came after the first point and was not learned from. The validation target is the first interaction
    between the two points of a user who has training interactions: it follows directly upon the sequence that
    validation predicts from, if there is no gap. Users with nothing before their target, and those without an
    interaction after the second point, are not judged. Interactions of equal time are ordered at random, as in
    `leave-last-two`.

    Source: Gusak et al., Time to Split, RecSys 2025; Ji et al., TOIS 2023.
    """

    validation_from: _Point = 0.8
    """The first point: the share of all interactions that lie before it, those of equal time all after it, or a date,
    as 2018-06-01 or 2018-06-01T12:00:00, in UTC."""
    test_from: _Point = 0.9
    """The second point, likewise."""
    target: Literal["last", "first", "cold"] = "last"
    """Which of a user's interactions after the second point is the test target; `cold` is the first with a history
    whose item has no training interaction, which ids cannot answer and texts can (see `cold-items`)."""
    gap_days: float = Field(default=0.0, ge=0)
    """Days before each point in which interactions neither train nor are validation targets: what would not have been
    known yet when the model was trained. Histories of test targets hold them."""

    @field_validator("validation_from", "test_from")
    @classmethod
    def _check_point(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("give a share between 0 and 1, or a date such as 2018-06-01")
        if isinstance(value, str):
            try:
                _moment(value)
            except ValueError:
                raise ValueError("give a share between 0 and 1, or a date such as 2018-06-01") from None
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        first, second = self.validation_from, self.test_from
        if isinstance(first, str) and isinstance(second, str):
            late = _moment(first) >= _moment(second)
        else:
            late = isinstance(first, float) and isinstance(second, float) and first >= second
        if late:
            raise ValueError(f"validation_from = {first} must lie below test_from = {second}; lower it")
        return self

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """Returns the division; the seed orders interactions of equal time.

        Raises UserError if there are no times, or if nothing lies between the points.
        """
        if data.time_unit is None:
            raise UserError(
                f"{data.name} has positions, not times, so '{self.use}' cannot split it; "
                "name a column of times in source.timestamp or use the split leave-last-two"
            )
        times, per_second = data.frame["timestamp"].sort(), PER_SECOND[data.time_unit]
        first, second = (
            int(times[int(point * len(times))]) if isinstance(point, float) else _moment(point) * per_second
            for point in (self.validation_from, self.test_from)
        )
        gap = round(self.gap_days * 86_400 * per_second)
        if second - gap < first:
            raise UserError(
                f"{data.name}: '{self.use}' leaves no time for validation: validation_from = {self.validation_from} "
                f"lies less than gap_days = {self.gap_days:g} before test_from = {self.test_from}; move one of them"
            )
        time, position = polars.col("timestamp"), polars.int_range(polars.len()).over("user")
        counts = {
            "_learned": time < first - gap,
            "_known": time < first,
            "_tuned": time < second - gap,
            "_early": time < second,
        }
        frame = _ordered(data.frame, seed).with_columns(
            *(condition.sum().over("user").alias(name) for name, condition in counts.items())
        )
        learned, known, tuned, earlier = map(polars.col, counts)
        # Also an earlier interaction after the second point is a history.
        target = polars.len().over("user") - 1
        if self.target == "first":
            target = earlier
        elif self.target == "cold":
            trained = data.frame.filter(time < first - gap)["item"].unique().implode()
            new = (time >= second) & ~polars.col("item").is_in(trained)
            inside = polars.int_range(polars.len())
            target = polars.when(new & (inside > 0)).then(inside).min().over("user")
        judged = ((target > 0) & (target >= earlier)).fill_null(False)
        frame = frame.with_columns(
            judged.alias("_judged"), polars.when(judged).then(target).otherwise(earlier).alias("_history")
        )
        wanted = {
            "training": position < learned,
            "gap": position < known,
            "validation": (position == known) & (learned > 0) & (position < tuned),
            "between": position < polars.col("_history"),
            "test": polars.col("_judged") & (position == polars.col("_history")),
        }
        return divided(frame, wanted, data.frame.columns)


def _moment(text: str) -> int:
    """Seconds since 1970 of a date in ISO 8601, of UTC if it has no offset. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _sorted(keys: polars.Series) -> polars.Series:
    """Keys in the order of their texts, and not of the rows."""
    return keys.gather(keys.cast(polars.String).arg_sort())


def _ordered(frame: polars.DataFrame, seed: int) -> polars.DataFrame:
    """Each user's rows together and in the order of time, those of equal time in random order."""
    # Drawn by row, not by item, so that exchanging held-out items moves no training row.
    shuffled = np.random.default_rng(seed).permutation(frame.height)
    # The order of users does not matter if each one's rows are together, and numbers are quicker to compare than keys.
    number = polars.col("user").cast(polars.Categorical).to_physical()
    ordered = frame.with_columns(number.alias("_number"), polars.Series("_tie", shuffled))
    return ordered.sort("_number", "timestamp", "_tie").drop("_number", "_tie")


def divided(ordered: polars.DataFrame, wanted: dict[str, polars.Expr], columns: list[str]) -> SplitInteractions:
    """Each row goes to the first part that wants it, and to `after` if none does; parts have these columns."""
    # Numbers, because names would need as much memory as the rows.
    numbers = {part.name: polars.lit(number, polars.UInt8) for number, part in enumerate(fields(SplitInteractions))}
    chosen = [polars.when(condition).then(numbers[name]) for name, condition in wanted.items()]
    part_of = ordered.select(polars.coalesce(*chosen, numbers["after"])).to_series()
    rows = ordered.select(columns)
    return SplitInteractions(**{name: rows.filter(part_of == number) for number, name in enumerate(numbers)})
