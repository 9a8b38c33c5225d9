"""What lies in a store: each result, what it came from, how large it is, which runs use it, and what may be deleted.

A result stays while a remembered run uses it, while a process holds its lock, and while something that stays was made
from it. A run in progress is not remembered yet, so results younger than a limit stay too; and while any process
computes in the store, so does every result, for nobody knows which ones it will read. Empty lock files always stay:
without them two processes that come at the same time could compute the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.runs import Run, forget, history
from reaemb_bench.core.store import MANIFEST, TRASH, Store

DAY = 86_400.0

What = Literal["result", "checkpoint", "draft", "remains"]

_LEAST_CHARACTERS = 4


@dataclass(frozen=True)
class Stored:
    """One result. created: seconds since 1970. size: bytes on disk. inputs: keys it was made from. runs: that use it.

    component is `damaged` if the manifest cannot be read.
    """

    key: str
    step: str
    component: str
    created: float
    size: int
    inputs: tuple[str, ...]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Piece:
    """One folder to delete. checkpoint: unfinished work of an interrupted step. draft: a result that was being written
    when its process died. remains: of an interrupted deletion. key: of the result it belongs to. size: bytes.
    stored: the result, if it is a whole one.
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


def inventory(store: Store) -> list[Stored]:
    """All whole results, newest first. Raises UserError if the record of a run cannot be read."""
    users, results = _users(store), []
    for key in store.stored_keys():
        try:
            manifest = store.manifest(key)
            step, component = str(manifest["step"]), str(manifest["identity"]["step"]["use"])
        except (UserError, KeyError, TypeError):
            manifest, step, component = {}, "", "damaged"
        (_, created), (size, _) = (_size_and_change(store.folder(key) / name) for name in (MANIFEST, ""))
        inputs = tuple(inputs_of(manifest).values())
        results.append(Stored(key, step, component, created, size, inputs, tuple(users.get(key, ()))))
    return sorted(results, key=lambda stored: (stored.created, stored.key), reverse=True)


def _users(store: Store) -> dict[str, list[Run]]:
    """By key of a result, the remembered runs that use it."""
    users: dict[str, list[Run]] = {}
    for run in history(store):
        for key in {result.key for seed in run.results for result in seed}:
            users.setdefault(key, []).append(run)
    return users


def _size_and_change(path: Path) -> tuple[int, float]:
    """Bytes of a file or of all files below a folder, and when any was last written; what vanishes meanwhile is 0."""
    size, changed = 0, 0.0
    for file in (path, *path.rglob("*")):
        with suppress(OSError):
            state = file.lstat()
            size += state.st_size if file.is_file() else 0
            changed = max(changed, state.st_mtime)
    return size, changed


def key_from(store: Store, start: str) -> str:
    """The one key in the store that begins with `start`. Raises UserError."""
    keys = [key for key in store.stored_keys() if key.startswith(start)] if len(start) >= _LEAST_CHARACTERS else []
    if len(keys) > 1:
        raise UserError(f"'{start}' begins the keys of {len(keys)} results: {', '.join(keys)}")
    if not keys:
        raise UserError(
            f"{store.root} holds no result whose key begins with '{start}' (at least {_LEAST_CHARACTERS} characters); "
            "`store ls` names all"
        )
    return keys[0]


def inputs_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """By parameter of the step, the key of the result it was given."""
    inputs: Mapping[str, str] = manifest.get("identity", {}).get("inputs", {})
    return {parameter: text.partition("/")[0] for parameter, text in inputs.items()}


def find_garbage(
    store: Store, *, now: float, forgotten: Sequence[Run] = (), younger: float = DAY, everything: bool = False
) -> Garbage:
    """What may be deleted once the runs `forgotten` are no longer remembered; nothing is changed.

    now: seconds since 1970. younger: results and checkpoints of fewer seconds stay, except results of the forgotten
    runs. everything: no matter how young, and though some process computes in the store; locked keys stay even so.
    """
    limit = 0.0 if everything else younger
    busy = store.computing()
    results = {stored.key: stored for stored in inventory(store)}
    gone = {run.id for run in forgotten}
    reasons: dict[str, str] = {}
    for key, stored in results.items():
        if any(run.id not in gone for run in stored.runs):
            reasons[key] = "used by remembered runs"
        elif key in busy:
            reasons[key] = "locked by a process"
        elif busy and not everything:
            reasons[key] = "unused, but a process is computing in this store"
        elif now - stored.created < limit and not stored.runs:
            reasons[key] = "unused, but young: of a run in progress, perhaps"
    waiting = list(reasons)
    while waiting:
        sources = [key for key in results[waiting.pop()].inputs if key in results and key not in reasons]
        reasons |= dict.fromkeys(sources, "what others that stay were made from")
        waiting += sources
    unused = {key: stored for key, stored in results.items() if key not in reasons}
    pieces = [Piece("result", store.folder(key), key, stored.size, stored) for key, stored in unused.items()]

    # What processes left when they died; a checkpoint that was written lately may still be continued.
    kinds: dict[str, What] = {"results": "remains", "drafts": "draft", "partial": "checkpoint", TRASH: "remains"}
    for parent, what in kinds.items():
        for folder in sorted((store.root / parent).glob("*")):
            of_key = None if parent == TRASH else folder.name.partition(".")[0]
            size, changed = _size_and_change(folder)
            whole = store.has(folder.name)
            young = what == "checkpoint" and not whole and changed > now - limit
            if not young and not (parent == "results" and whole) and of_key not in busy:
                pieces.append(Piece(what, folder, of_key, size))
    return Garbage(tuple(forgotten), tuple(pieces), Counter(reasons.values()))


def delete(store: Store, garbage: Garbage) -> tuple[Piece, ...]:
    """Forget the runs, then delete what no process has locked or remembered since; returns what was deleted."""
    for run in garbage.forgotten:
        forget(store, run)
    users = _users(store)
    unused = [piece for piece in garbage.pieces if piece.what != "result" or piece.key not in users]
    return tuple(piece for piece in unused if store.discard(piece.folder, piece.key))
