"""Recipes cut short: a leak shows after two steps as it does after two thousand."""

from __future__ import annotations

from typing import Any, get_args

from reaemb_bench.component import Step
from reaemb_bench.recipe import Recipe, from_raw, merge

_CUT = ("steps", "epochs")
_LEFT = 2
"""One would hide whatever is decided between an epoch and the next."""


def shortened(recipe: Recipe) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with each step's settings `steps` and `epochs` at 2 at most, and a line for each that was cut."""
    raw, lines = recipe.raw, []
    for name, step in recipe.steps.items():
        for setting in _CUT:
            if _is_longer(step, setting):
                raw = merge(raw, {name: {setting: _LEFT}})
                before = getattr(step, setting)
                lines.append(f"{name}.{setting} {'unlimited' if before is None else before} → {_LEFT}")
    return from_raw(raw, recipe.name), tuple(lines)


def _is_longer(step: Step, setting: str) -> bool:
    field = type(step).model_fields.get(setting)
    if field is None:
        return False
    value: Any = getattr(step, setting)
    if value is None:
        return int in get_args(field.annotation)
    return type(value) is int and value > _LEFT
