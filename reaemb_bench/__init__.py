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
    from reaemb_bench.core.component import Component, Context, DataAccess, Progress, Randomness, Step
    from reaemb_bench.core.errors import UserError
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.registry import Pick
    from reaemb_bench.data.interactions import About, Interactions, SplitInteractions
    from reaemb_bench.report.vectors import load_vectors

__version__ = "0.1.0"

_MODULES = {
    "core.artifacts": (
        "Corpus",
        "Encoder",
        "Float32",
        "Floors",
        "Ranker",
        "Ranks",
        "Sequences",
        "TestTargets",
        "ValidationTargets",
        "Vectors",
    ),
    "core.component": ("Component", "Context", "DataAccess", "Progress", "Randomness", "Step"),
    "core.errors": ("UserError",),
    "core.machine": ("Machine",),
    "core.registry": ("Pick",),
    "data.interactions": ("About", "Interactions", "SplitInteractions"),
    "report.vectors": ("load_vectors",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "About",
    "Component",
    "Context",
    "Corpus",
    "DataAccess",
    "Encoder",
    "Float32",
    "Floors",
    "Interactions",
    "Machine",
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
    "load_vectors",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `import reaemb_bench` and the shell's completion stay quick.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
