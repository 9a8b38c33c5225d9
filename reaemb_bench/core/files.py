"""Files that are either whole or absent, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from reaemb_bench.core.errors import UserError

_SEAL = "sealed"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def is_file(file: Path) -> bool:
    """Whether there is such a file; no for names that no file can have, and for links that lead in circles."""
    try:
        return file.is_file()
    except OSError:
        return False


def real_path(file: Path) -> str:
    """The absolute path behind all links, whatever its name and wherever they lead."""
    try:
        return os.path.realpath(file)
    except ValueError:
        return str(file.absolute())


def sha256_of(file: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_sha256(file: Path) -> str:
    """Hex sha256 of a file's bytes, read once a process while its size and time of change stay the same."""
    now = file.stat()
    return _remembered(file.resolve(), now.st_size, now.st_mtime_ns)


@cache
def _remembered(file: Path, size: int, changed: int) -> str:  # noqa: ARG001 - they tell one state from the next
    return sha256_of(file)


def file_digests(files: Mapping[str, Path]) -> dict[str, str]:
    """The sha256 of all files as `<name>_sha256`, or the first that is missing: a plan needs no data."""
    missing = next((str(file) for file in files.values() if not is_file(file)), None)
    if missing is not None:
        return {"missing": missing}
    return {f"{name}_sha256": cached_sha256(file) for name, file in files.items()}


def write_atomically(file: Path, content: bytes) -> None:
    """Write `content` to `file` so that a crash leaves the old file or the new one, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # Temporary files are their owner's alone; this one is as others are.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_new(file: Path, content: bytes) -> None:
    """Write a file that is not there yet. Raises UserError where it is, or where its folder cannot be written."""
    if file.exists():
        raise UserError(f"{file} exists and is left as it is; choose another name")
    try:
        write_atomically(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another place") from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync_tree(folder: Path) -> None:
    """Force every file below `folder`, and the folders themselves, to disk."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def checksummed_json(facts: Mapping[str, Any], name: str) -> str:
    """The facts as JSON text with a checksum of them and of the name under which they are kept, for `unsealed`."""
    return json.dumps({**facts, _SEAL: _seal(json.loads(json.dumps(facts)), name)}, ensure_ascii=False, indent=1) + "\n"


def read_checksummed(content: bytes, name: str) -> dict[str, Any]:
    """The facts in what `sealed_json` made. Raises ValueError where they, or the name, are others."""
    try:
        facts = json.loads(content)
        if isinstance(facts, dict) and facts.pop(_SEAL, None) == _seal(facts, name):
            return facts
    except RecursionError:
        pass
    raise ValueError("it is not what was written there: its checksum differs")


def _seal(facts: Mapping[str, Any], name: str) -> str:
    return hashlib.sha256(json.dumps([name, facts], sort_keys=True).encode()).hexdigest()


def why_unwritten(error: BaseException, folder: Path) -> str:
    """Why the system let nothing be written, or nothing in `folder`, in its words; empty where the error is another.

    Libraries in Rust, and shutil where it copies many files, tell an error of the system with its number in the text.
    """
    told = re.search(r"(?:\(os error |\[Errno )(\d+)", str(error))
    number = error.errno if isinstance(error, OSError) and error.errno else int(told[1]) if told else 0
    place = getattr(error, "filename", None)
    inside = isinstance(place, str) and Path(place).absolute().is_relative_to(folder.absolute())
    return os.strerror(number) if number in _FULL or (number and inside) else ""
