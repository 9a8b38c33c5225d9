"""reaemb-bench: compare ways of turning a language model into item embeddings for sequential recommendation.

What a plug-in or a notebook needs can be imported from here; other modules may change without notice.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reaemb_bench.core.artifacts import (
        Corpus,
        Encoder,
        Float32,
        Floors,
        Ranker,
        Ranks,
        Sequences,
        TestTargets,
        ValidationTargets,
        Vectors,
    )
    from reaemb_bench.core.component import Component, Context, DataAccess, NotHashed, Progress, Randomness, Step
    from reaemb_bench.core.errors import UserError
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.registry import Pick
    from reaemb_bench.data.interactions import About, Interactions, SplitInteractions
    from reaemb_bench.experiments.evaluate import Evaluation, evaluate
    from reaemb_bench.report.vectors import load_vectors

__version__ = "0.1.0"

_MODULES = (
    "core.component",
    "core.errors",
    "core.registry",
    "core.artifacts",
    "data.interactions",
    "report.vectors",
    "experiments.evaluate",
)

__all__ = [
    "About",
    "Component",
    "Context",
    "Corpus",
    "DataAccess",
    "Encoder",
    "Evaluation",
    "Float32",
    "Floors",
    "Interactions",
    "Machine",
    "NotHashed",
    "Pick",
    "Progress",
    "Randomness",
    "Ranker",
    "Ranks",
    "Sequences",
    "SplitInteractions",
    "Step",
    "TestTargets",
    "UserError",
    "ValidationTargets",
    "Vectors",
    "__version__",
    "evaluate",
    "load_vectors",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `import reaemb_bench` and the shell's completion stay quick.
    if name in __all__:
        for module in _MODULES:
            home = importlib.import_module(f"{__name__}.{module}")
            if hasattr(home, name):
                return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
