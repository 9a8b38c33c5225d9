"""What lies in a store: each result, what it came from, how large it is, and which runs use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.runs import Run, forget, history
from reaemb_bench.core.store import MANIFEST, TRASH, Store

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


# What may be deleted from a store, and its deletion.
#
# A result stays while a remembered run uses it, while a process holds its lock, and while something that stays was made
# from it. A run in progress is not remembered yet, so results younger than a limit stay too; and while any process
# computes in the store, so does every result, for nobody knows which ones it will read. Empty lock files always stay:
# without them two processes that come at the same time could compute the same.


DAY = 86_400.0

What = Literal["result", "checkpoint", "draft", "remains"]


@dataclass(frozen=True)
class Piece:
    """One folder to delete. checkpoint: unfinished work of an interrupted step. draft: a result that was being written
    when its process died. remains: of an interrupted deletion. key: of the result it belongs to. size: bytes.
    stored: the result, where it is a whole one.
    """

    what: What
    folder: Path
    key: str | None
    size: int
    stored: Stored | None = None


@dataclass(frozen=True)
class Garbage:
    """What may be deleted: records of runs, then folders. kept: why results stay, and how many for this reason."""

    forgotten: tuple[Run, ...]
    pieces: tuple[Piece, ...]
    kept: Mapping[str, int]

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(piece.size for piece in self.pieces)


def find_garbage(
    store: Store, *, now: float, forgotten: Sequence[Run] = (), younger: float = DAY, everything: bool = False
) -> Garbage:
    """What may be deleted once the runs `forgotten` are remembered no longer; nothing is changed.

    now: seconds since 1970. younger: results and checkpoints of fewer seconds stay, but for results of the forgotten
    runs. everything: no matter how young, and though some process computes in the store; locked keys stay even so.
    """
    limit = 0.0 if everything else younger
    busy = store.computing()
    results = inventory(store)
    gone = {run.id for run in forgotten}
    reasons = {
        stored.key: reason
        for stored in results
        if (reason := _reason(stored, gone, busy, everything, now - stored.made < limit))
    }
    _keep_inputs(results, reasons)
    pieces = [
        Piece("result", store.folder(stored.key), stored.key, stored.size, stored)
        for stored in results
        if stored.key not in reasons
    ]
    pieces += _leftovers(store, busy, now - limit)
    return Garbage(tuple(forgotten), tuple(pieces), Counter(reasons.values()))


def delete(store: Store, garbage: Garbage) -> tuple[Piece, ...]:
    """Forget the runs, then delete what no process has locked or remembered since; gives back what was deleted."""
    for run in garbage.forgotten:
        forget(store, run)
    used = users_of(history(store))
    chosen = [piece for piece in garbage.pieces if piece.what != "result" or piece.key not in used]
    return tuple(piece for piece in chosen if store.discard(piece.folder, piece.key))


def _reason(stored: Stored, gone: Collection[str], busy: Collection[str], everything: bool, young: bool) -> str:
    """Why a result stays; empty where it need not."""
    if any(run.id not in gone for run in stored.runs):
        return "used by remembered runs"
    if stored.key in busy:
        return "locked by a process"
    if busy and not everything:
        return "unused, but a process is computing in this store"
    if young and not stored.runs:
        return "unused, but young: of a run in progress, perhaps"
    return ""


def _keep_inputs(results: Sequence[Stored], reasons: dict[str, str]) -> None:
    by_key = {stored.key: stored for stored in results}
    waiting = list(reasons)
    while waiting:
        for key in by_key[waiting.pop()].inputs:
            if key in by_key and key not in reasons:
                reasons[key] = "what others that stay were made from"
                waiting.append(key)


def _leftovers(store: Store, busy: Collection[str], before: float) -> list[Piece]:
    halves = [folder for folder in _below(store, "results") if not store.has(folder.name)]
    unfinished = [
        folder for folder in _below(store, "partial") if store.has(folder.name) or last_change(folder) <= before
    ]
    found = [
        *(Piece("remains", folder, folder.name, size_of(folder)) for folder in halves),
        *(Piece("draft", folder, folder.name.partition(".")[0], size_of(folder)) for folder in _below(store, "drafts")),
        *(Piece("checkpoint", folder, folder.name, size_of(folder)) for folder in unfinished),
        *(Piece("remains", folder, None, size_of(folder)) for folder in _below(store, TRASH)),
    ]
    return [piece for piece in found if piece.key not in busy]


def _below(store: Store, name: str) -> list[Path]:
    return sorted((store.root / name).glob("*"))
