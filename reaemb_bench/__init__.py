"""reaemb-bench: compare ways of turning a language model into item embeddings for sequential recommendation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reaemb_bench.report.vectors import load_vectors

__version__ = "0.1.0"
__all__ = ["__version__", "load_vectors"]


def __getattr__(name: str) -> Any:
    # So that `import reaemb_bench` stays quick.
    if name == "load_vectors":
        from reaemb_bench.report.vectors import load_vectors

        return load_vectors
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
