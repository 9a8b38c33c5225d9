"""What changed from one run to another: settings, results, and what results were made with."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reaemb_bench.runs import Run
from reaemb_bench.store import Store
from reaemb_bench.tracking.naming import flatten

ABSENT = "—"
"""Stands for a setting that one of the runs does not have."""
_VALUE_CHARACTERS = 24


@dataclass(frozen=True)
class Setting:
    """A setting that differs, at its dotted path, with its value in each run."""

    path: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Pair:
    """The results of one step in both runs, for their first seeds; None where a run has no such step."""

    step: str
    first: str | None
    second: str | None

    @property
    def same(self) -> bool:
        """Whether it is one and the same result."""
        return self.first == self.second


def settings_changed(first: Run, second: Run) -> list[Setting]:
    """Settings that differ, in the order of the recipes; those of steps that only one run has are left out."""
    # Seeds that nobody chose are not written in the recipe.
    recipes = [{"seeds": list(run.seeds), **tomllib.loads(run.recipe)} for run in (first, second)]
    lone = {step for step in (*recipes[0]["steps"], *recipes[1]["steps"]) if not all(step in each for each in recipes)}
    before, after = (
        flatten({name: value for name, value in each.items() if name not in {*lone, "steps"}}) for each in recipes
    )
    return [
        Setting(path, before.get(path, ABSENT), after.get(path, ABSENT))
        for path in dict.fromkeys([*before, *after])
        if before.get(path, ABSENT) != after.get(path, ABSENT)
    ]


def results_paired(first: Run, second: Run) -> list[Pair]:
    """The results of every step that either run has: those of the first in its order, then what only the second has."""
    before, after = ({result.step: result.key for result in run.results[0]} for run in (first, second))
    return [Pair(step, before.get(step), after.get(step)) for step in dict.fromkeys([*before, *after])]


def reasons(pair: Pair, store: Store) -> str:
    """Why the results of a pair differ, as far as the store can tell."""
    if pair.first is None or pair.second is None:
        return f"only in {'B' if pair.first is None else 'A'}"
    if not (store.has(pair.first) and store.has(pair.second)):
        return "no longer in the store, so nobody can tell"
    before, after = (flatten(store.manifest(key)["identity"]) for key in (pair.first, pair.second))
    own = [each for each in differing(before, after) if not each.startswith("inputs.")]
    return "; ".join(own) or "its inputs differ"


def versions_changed(pairs: list[Pair], store: Store) -> dict[str, list[str]]:
    """By change, such as `numpy: 2.3.1 → 2.4.0`, the steps that were computed with other versions in the second run."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.first is None or pair.second is None or not (store.has(pair.first) and store.has(pair.second)):
            continue
        before, after = (store.manifest(key)["versions"] for key in (pair.first, pair.second))
        for change in differing(before, after):
            found.setdefault(change, []).append(pair.step)
    return found


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two flat tables, as `rate: 0.1 → 0.2`; `step.` is left out."""
    made = []
    for path in sorted({*before, *after}):
        if before.get(path) == after.get(path):
            continue
        name = path.removeprefix("step.")
        if name == "code":
            made.append("the plug-in file was edited")
        elif path not in before:
            made.append(f"{name} is new")
        elif path not in after:
            made.append(f"{name} is gone")
        else:
            made.append(f"{name}: {_short(before[path])} → {_short(after[path])}")
    return made


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[: _VALUE_CHARACTERS - 1]}…"
