"""Sources of raw files in tests: the miniatures, what they give, and their texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.data.interactions import Interactions, Removed
from reaemb_bench.data.kinds import Source
from reaemb_bench.data.prompts import Attributes

RAW = Path(__file__).parents[1] / "fixtures" / "raw"


def read(use: str, **settings: Any) -> Interactions:
    """What a source reads."""
    return cast("Source", build("source", {"use": use, **settings})).read(Machine())


def texts(data: Interactions) -> dict[str, str]:
    """Item key -> its text by the prompt `attributes`."""
    return {key: Attributes().text(attributes) for key, attributes in data.items.items()}


def counted(data: Interactions) -> dict[str, Removed]:
    """What was removed, reasons that took nothing left out."""
    return {reason: gone for reason, gone in data.removed.items() if any(gone)}
