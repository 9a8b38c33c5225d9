"""The step chains with others."""

from typing import get_type_hints

from reaemb_bench import Corpus, Step, Vectors
from reaemb_bench.cli.scaffolds.step import Example


def test_it_makes_vectors_of_a_corpus() -> None:
    """Its type hints say what it reads and makes."""
    assert issubclass(Example, Step)
    hints = get_type_hints(Example.run)
    assert hints["corpus"] is Corpus
    assert hints["return"] is Vectors
