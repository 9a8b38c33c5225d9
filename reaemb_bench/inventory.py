"""What lies in a store: each result, what it came from, how large it is, and which runs use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reaemb_bench.errors import UserError
from reaemb_bench.runs import Run, history
from reaemb_bench.store import MANIFEST, Store

DAMAGED = "damaged"
"""Stands for the component where the manifest cannot be read."""
LEAST = 4
"""Characters of a key that a person must give at least."""


@dataclass(frozen=True)
class Stored:
    """One result. made: seconds since 1970. size: bytes on disk. inputs: keys it was made from. runs: that use it."""

    key: str
    step: str
    component: str
    made: float
    size: int
    inputs: tuple[str, ...]
    runs: tuple[Run, ...]


def inventory(store: Store) -> list[Stored]:
    """All whole results, newest first. Raises UserError where the record of a run cannot be read."""
    used = users_of(history(store))
    found = [_stored(store, file.parent, used) for file in store.root.glob(f"results/*/{MANIFEST}")]
    return sorted(found, key=lambda each: (each.made, each.key), reverse=True)


def users_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """By key of a result, the runs that use it."""
    used: dict[str, list[Run]] = {}
    for run in runs:
        for key in {result.key for seed in run.results for result in seed}:
            used.setdefault(key, []).append(run)
    return used


def key_from(store: Store, wanted: str) -> str:
    """The one key in the store that begins so. Raises UserError."""
    keys = sorted(file.parent.name for file in store.root.glob(f"results/*/{MANIFEST}"))
    found = [key for key in keys if key.startswith(wanted)] if len(wanted) >= LEAST else []
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"'{wanted}' begins the keys of {len(found)} results: {', '.join(found)}")
    raise UserError(
        f"{store.root} holds no result whose key begins with '{wanted}' (at least {LEAST} characters); "
        "`store ls` names all"
    )


def inputs_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """By parameter of the step, the key of the result it was given."""
    inputs: Mapping[str, str] = manifest.get("identity", {}).get("inputs", {})
    return {parameter: text.partition("/")[0] for parameter, text in inputs.items()}


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; what vanishes meanwhile counts nothing."""
    return sum(size for size, _ in _files(folder))


def last_change(folder: Path) -> float:
    """When anything below a folder, or itself, was last written: seconds since 1970, 0 where it is gone."""
    try:
        own = folder.stat().st_mtime
    except OSError:
        return 0.0
    return max([own, *(changed for _, changed in _files(folder))])


def _files(folder: Path) -> list[tuple[int, float]]:
    made = []
    for path in folder.rglob("*"):
        try:
            state = path.lstat()
        except OSError:
            continue
        made.append((state.st_size if path.is_file() else 0, state.st_mtime))
    return made


def _stored(store: Store, folder: Path, used: Mapping[str, Sequence[Run]]) -> Stored:
    try:
        manifest = store.manifest(folder.name)
        step, component = str(manifest["step"]), str(manifest["identity"]["step"]["use"])
    except (UserError, KeyError, TypeError):
        manifest, step, component = {}, "", DAMAGED
    return Stored(
        key=folder.name,
        step=step,
        component=component,
        made=last_change(folder / MANIFEST),
        size=size_of(folder),
        inputs=tuple(inputs_of(manifest).values()),
        runs=tuple(used.get(folder.name, ())),
    )
