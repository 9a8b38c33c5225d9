"""The reducer keeps items apart."""

import numpy as np

from reaemb_bench import Vectors
from reaemb_bench.cli.scaffolds.reducer import Example


def test_it_keeps_items_apart_and_gives_the_width_that_was_asked_for() -> None:
    """Five items stay five, in three dimensions."""
    reduced = Example(dimensions=3).reduce(Vectors(np.eye(5, dtype=np.float32))).values
    assert reduced.shape == (5, 3)
    assert len(np.unique(reduced, axis=0)) == 5
