"""Splits: which interactions are learned from, tuned on and judged by."""

from __future__ import annotations

import numpy as np

from reaemb_bench.component import Component
from reaemb_bench.data.interactions import Interactions, SplitInteractions


class LeaveLastTwo(Component):
    """A user's last interaction is the test target, the one before it the validation target, all others train.

    Users with fewer than 3 interactions only train. Interactions of equal time are ordered at random: file order is
    often catalogue order, from which a model could guess the target.
    """

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """The division; the seed orders interactions of equal time."""
        import polars

        # Drawn by row, not by item, so that exchanging held-out items moves no training row.
        shuffled = np.random.default_rng(seed).permutation(data.frame.height)
        ordered = (
            data.frame.with_columns(polars.Series("_tie", shuffled)).sort("user", "timestamp", "_tie").drop("_tie")
        )
        count = polars.len().over("user")
        from_end = count - polars.int_range(polars.len()).over("user")
        part = polars.when(count < 3).then(polars.lit(3)).otherwise(from_end)
        placed = ordered.with_columns(part.alias("_part"))
        return SplitInteractions(
            training=placed.filter(polars.col("_part") >= 3).drop("_part"),
            validation=placed.filter(polars.col("_part") == 2).drop("_part"),
            test=placed.filter(polars.col("_part") == 1).drop("_part"),
        )
