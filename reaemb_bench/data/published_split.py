"""The split that a data set was published with, as a source reads it from its files."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars

from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import UserError
from reaemb_bench.data.interactions import Interactions, SplitInteractions
from reaemb_bench.data.splits import divided

PART = "part"
"""Column of a frame of interactions, only where a split was published: a key of `PARTS`, in their order."""
PARTS = {"training": "train", "validation": "valid", "test": "test"}
"""Part of a published split -> how the names of its files say it, as in `Video_Games.train.csv`."""


class Published(Component):
    """The parts in which the data were published: files of training, validation and test.

    If users have several interactions in the test part, as in a split by time, one of them is the target, and all
    that precede it are its history. The validation target is the first in the validation part of a user who has
    training interactions. Users with nothing before their target are not judged. Interactions of a user in one part
    that have equal times are ordered at random, as in `leave-last-two`.
    """

    target: Literal["last", "first"] = "last"
    """Which of a user's interactions in the test part is the target."""

    def apply(self, data: Interactions, seed: int) -> SplitInteractions:
        """Returns the division; the seed orders interactions of equal time. Raises UserError if none was published."""
        if PART not in data.frame.columns:
            raise UserError(
                f"{data.name} was read from one file, so no split of it is known; give files in parts, such as "
                "X.train.csv with X.valid.csv and X.test.csv next to it, or choose another split"
            )
        tie = polars.Series("_tie", np.random.default_rng(seed).permutation(data.frame.height))
        # In the order of the parts before that of the times: a published split is taken at its word.
        ordered = data.frame.with_columns(tie).sort("user", PART, "timestamp", "_tie").drop("_tie")
        part, position = polars.col(PART), polars.int_range(polars.len()).over("user")
        trained, held_out = ((part == name).sum().over("user") for name in ("training", "test"))
        earlier = polars.len().over("user") - held_out
        target = earlier if self.target == "first" else polars.len().over("user") - 1
        judged = (held_out > 0) & (target > 0)
        wanted = {
            "training": part == "training",
            "validation": (position == trained) & (trained > 0) & (part == "validation"),
            "test": judged & (position == target),
            "between": (position < earlier) | (judged & (position < target)),
        }
        return divided(ordered, wanted, [column for column in data.frame.columns if column != PART])
