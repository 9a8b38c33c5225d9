"""The step chains with others."""

from reaemb_bench.artifacts import Corpus, Vectors
from reaemb_bench.component import Step
from reaemb_bench.pipeline import signature
from reaemb_bench.scaffolds.step import Example


def test_it_makes_vectors_of_a_corpus() -> None:
    """Its type hints say what it reads and makes."""
    assert issubclass(Example, Step)
    wants, makes, _ = signature(Example(), "mine")
    assert wants == {"corpus": Corpus}
    assert makes == (Vectors,)
