"""The step chains with others."""

from reaemb_bench import Corpus, Step, Vectors
from reaemb_bench.cli.scaffolds.step import Example
from reaemb_bench.core.plan import signature


def test_it_makes_vectors_of_a_corpus() -> None:
    """Its type hints say what it reads and makes."""
    assert issubclass(Example, Step)
    wants, makes, _ = signature(Example(), "mine")
    assert wants == {"corpus": Corpus}
    assert makes == (Vectors,)
