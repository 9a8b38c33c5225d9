"""The floor scores by what it counted."""

import numpy as np

from reaemb_bench import Corpus, Sequences
from reaemb_bench.cli.scaffolds.floor import Example


def test_what_many_have_stands_above_what_few_have() -> None:
    """Two, one and no interactions give three scores in this order."""
    training = Sequences(np.array([0, 1, 0], dtype=np.int32), np.array([0, 2, 3], dtype=np.int64))
    items = ("a", "b", "c")
    corpus = Corpus("toys", training, items, ("u", "v"), "", items, items)
    scores = Example().fit(corpus).scores(training)
    assert scores.shape == (2, 3)
    assert (scores[:, 0] > scores[:, 1]).all()
    assert (scores[:, 1] > scores[:, 2]).all()
