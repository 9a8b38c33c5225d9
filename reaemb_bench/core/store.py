"""The store: results on disk under a key that hashes everything that decided them.

Layout: `<root>/results/<key>/` holds one folder an artefact, `progress.jsonl` and `manifest.json`. A result appears
by one rename of a finished folder, so a crash leaves nothing half-written under a key. The manifest holds the sha256
of every file and a checksum of itself and its key, so nothing that was changed is used. One lock file a key keeps two
processes from computing the same result; the operating system frees it when its owner dies.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import BaseFileLock, FileLock, Timeout

from reaemb_bench.core import files
from reaemb_bench.core.errors import UserError

T = TypeVar("T")

MANIFEST = "manifest.json"
PROGRESS_FILE = "progress.jsonl"
TRASH = "trash"
"""Folder of what is being deleted."""


@dataclass(frozen=True)
class Store:
    """Content-addressed results below one folder."""

    root: Path

    def folder(self, key: str) -> Path:
        """Where the result of `key` lies, or would lie."""
        return self.root / "results" / key

    def has(self, key: str) -> bool:
        """Whether the whole result of `key` is there."""
        return (self.folder(key) / MANIFEST).is_file()

    def stored_keys(self) -> list[str]:
        """Keys of all whole results, sorted."""
        return sorted(file.parent.name for file in self.root.glob(f"results/*/{MANIFEST}"))

    def manifest(self, key: str) -> dict[str, Any]:
        """The manifest of a result: step, settings, inputs, seed, seconds, facts, versions, files.

        Raises UserError if it is not there or was changed.
        """
        file = self.folder(key) / MANIFEST
        try:
            return files.read_checksummed(file.read_bytes(), key)
        except FileNotFoundError:
            raise UserError(f"the store has lost the result {file.parent}; run again, and it is computed") from None
        except PermissionError as error:
            raise _unreadable(file, error) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read ({error}); delete the folder {file.parent} and run again") from None

    def load(self, key: str, artifact: type[T]) -> T:
        """One artefact of a result. Raises UserError if a file of it was changed, cut or lost."""
        loaded: T = artifact.load(self.verify(key, artifact.__name__.lower()))  # type: ignore[attr-defined]
        return loaded

    def verify(self, key: str, name: str) -> Path:
        """A file of the result of `key`, or the folder of an artefact, checked against the manifest.

        Raises UserError naming the file that was changed, cut or lost.
        """
        folder = self.folder(key)
        cure = f"delete {folder}, run again"
        for path, known in self.manifest(key)["files"].items():
            if path.partition("/")[0] != name:
                continue
            file = folder / path
            try:
                same_size = file.is_file() and file.stat().st_size == known["bytes"]
                whole = same_size and files.sha256_of(file) == known["sha256"]
            except PermissionError as error:
                raise _unreadable(file, error) from None
            except OSError as error:
                raise UserError(f"{file} cannot be read ({error.strerror}); {cure}") from None
            if not whole:
                raise UserError(f"{file} is damaged (its sha256 differs from the manifest); {cure}")
        return folder / name

    def progress(self, key: str) -> list[dict[str, Any]]:
        """The recorded curve of a result, oldest point first. Raises UserError if its file was changed or lost."""
        file = self.verify(key, PROGRESS_FILE)
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []

    def lock(self, key: str) -> BaseFileLock:
        """A lock that one process at a time holds while it computes `key`."""
        return FileLock(self._make(self.root / "locks") / f"{key}.lock")

    @contextmanager
    def computing_alone(self, key: str, waiting: Callable[[str], None]) -> Iterator[None]:
        """A block in which this process holds the lock of `key`.

        waiting: called if another process holds it, with words for that process; then this one waits.
        """
        lock, owner = self.lock(key), self.root / "locks" / f"{key}.owner"
        try:
            lock.acquire(timeout=0)
        except Timeout:
            words = ""
            with suppress(OSError):
                words = owner.read_text(encoding="utf-8")
            waiting(words or "another process")
            lock.acquire()
        try:
            owner.write_text(f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M:%S}")
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def held(self, key: str) -> bool:
        """Whether a process computes `key` now."""
        if not (self.root / "locks" / f"{key}.lock").is_file():
            return False
        try:
            with self.lock(key).acquire(timeout=0):
                return False
        except (Timeout, PermissionError):
            # Without the right to lock a key nobody can tell that it is free.
            return True

    def computing(self) -> frozenset[str]:
        """All keys that processes compute now."""
        keys = [file.stem for file in (self.root / "locks").glob("*.lock")]
        return frozenset(key for key in keys if self.held(key))

    def scratch(self, key: str) -> Path:
        """A folder for the unfinished work on `key`; it outlives a crash."""
        return self._make(self.root / "partial" / key)

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """An empty folder to fill; on a clean exit it becomes the result of `key`, otherwise it vanishes.

        The caller holds the lock of `key`, and writes the manifest last, by `save_checksummed`.
        """
        for draft in (self.root / "drafts").glob(f"{key}.*"):
            shutil.rmtree(draft, ignore_errors=True)
        draft = self._make(self.root / "drafts" / f"{key}.{uuid.uuid4().hex[:8]}")
        try:
            yield draft
            files.finish_tree(draft)
            self._make(self.root / "results")
            if not self.has(key):
                # A folder without a manifest was half deleted.
                shutil.rmtree(self.folder(key), ignore_errors=True)
                draft.rename(self.folder(key))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self.tidy(key)

    def tidy(self, key: str) -> None:
        """Delete what is left of the work on the finished `key`, also by a process that died at its end."""
        for folder in (self.root / "partial" / key, *(self.root / "drafts").glob(f"{key}.*")):
            shutil.rmtree(folder, ignore_errors=True)

    def discard(self, folder: Path, key: str | None = None) -> bool:
        """Delete a folder of this store, which one rename hides first; False if it is gone already.

        False too if a process computes `key`, to which the folder belongs. Raises UserError.
        """
        away = self._make(self.root / TRASH) / f"{folder.name}.{uuid.uuid4().hex[:8]}"
        try:
            with self.lock(key).acquire(timeout=0) if key is not None else nullcontext():
                folder.rename(away)
        except (Timeout, FileNotFoundError):
            return False
        except OSError as error:
            raise UserError(f"{folder} cannot be deleted ({error.strerror})") from None
        shutil.rmtree(away, ignore_errors=True)
        return True

    @contextmanager
    def guarding(self, what: str, needs: Collection[str]) -> Iterator[None]:
        """A block of work on a result in which trouble with the disk is told in one line.

        what: the name of the work. needs: keys that it reads. Raises UserError if results or folders vanish meanwhile,
        or if nothing more can be written.
        """
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            for folder in (self.root, *(self.folder(key) for key in needs)):
                if not folder.is_dir():
                    raise UserError(f"{what}: {folder} was deleted meanwhile; run again, and it is computed") from None
            if reason := files.why_unwritten(error, self.root):
                raise UserError(
                    f"{what}: nothing more can be written to the store {self.root} ({reason}); make room there or "
                    "choose another with --store. Finished steps are kept, the same command goes on from there"
                ) from None
            raise

    def _make(self, folder: Path) -> Path:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the store folder {folder} cannot be made ({error.strerror}); choose another with --store"
            ) from None
        return folder


def save_checksummed(draft: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of a finished draft of `Store.writing`: the facts, and size and sha256 of every file in it."""
    contents = {
        path.relative_to(draft).as_posix(): {"bytes": path.stat().st_size, "sha256": files.sha256_of(path)}
        for path in sorted(draft.rglob("*"))
        if path.is_file()
    }
    text = files.checksummed_json({**facts, "files": contents}, draft.name.partition(".")[0])
    (draft / MANIFEST).write_text(text, encoding="utf-8")


def _unreadable(file: Path, error: OSError) -> UserError:
    return UserError(f"{file} cannot be read ({error.strerror}); ask its owner to let you, or choose another --store")
