"""Files that are either whole or absent, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from reaemb_bench.core.errors import UserError

_CHECKSUM = "sealed"


def is_file(file: Path) -> bool:
    """Whether there is such a file; False for names that no file can have and for links that lead in circles."""
    try:
        return file.is_file()
    except OSError:
        return False


def real_path(file: Path) -> str:
    """The absolute path with all links resolved; of a name that no file can have, the absolute path alone."""
    try:
        return os.path.realpath(file)
    except ValueError:
        return str(file.absolute())


def sha256_of(file: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached_sha256(file: Path) -> str:
    """Hex sha256 of a file's bytes, read once a process while its inode, size and times of change stay the same."""
    state = file.stat()
    return _sha256_of_state(file.resolve(), (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))


@cache
def _sha256_of_state(file: Path, state: tuple[int, ...]) -> str:  # noqa: ARG001 - it tells one state from the next
    return sha256_of(file)


def contents_of(path: Path) -> dict[str, Any]:
    """What a file or folder holds, for a key: the sha256 of the file, or of each visible file below the folder.

    Files and folders whose names start with a dot are left out. A path without anything there gives its name: a plan
    needs no data. Raises UserError if a file cannot be read.
    """
    path = path.expanduser()
    try:
        if is_file(path):
            return {"sha256": cached_sha256(path)}
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            names = {file: file.relative_to(path) for file in files}
            return {
                name.as_posix(): cached_sha256(file)
                for file, name in names.items()
                if not any(part[0] == "." for part in name.parts)
            }
    except OSError as error:
        raise UserError(f"{error.filename or path} cannot be read ({error.strerror}); make it readable") from None
    return {"missing": str(path)}


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
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files that their owner alone may read; this one is as other new files are.
        part.chmod(_new_file_mode())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _new_file_mode() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def write_new(file: Path, content: bytes) -> None:
    """Write a file that does not exist yet. Raises UserError if it exists or cannot be written."""
    if file.exists():
        raise UserError(f"{file} exists and is left as it is; choose another name")
    try:
        write_atomically(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another place") from None


def finish_tree(folder: Path) -> None:
    """Force all files below `folder` to disk, with the rights of new files: safetensors lets their owner alone read."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_file():
            path.chmod(_new_file_mode())
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def checksummed_json(facts: Mapping[str, Any], name: str) -> str:
    """The facts as JSON text with a checksum of them and of the name under which they are kept."""
    checksum = _checksum(json.loads(json.dumps(facts)), name)
    return json.dumps({**facts, _CHECKSUM: checksum}, ensure_ascii=False, indent=1) + "\n"


def read_checksummed(content: bytes, name: str) -> dict[str, Any]:
    """The facts that `checksummed_json` wrote under this name. Raises ValueError if either was changed."""
    with suppress(RecursionError):
        facts = json.loads(content)
        if isinstance(facts, dict) and facts.pop(_CHECKSUM, None) == _checksum(facts, name):
            return facts
    raise ValueError("it is not what was written there: its checksum differs")


def _checksum(facts: Mapping[str, Any], name: str) -> str:
    return hashlib.sha256(json.dumps([name, facts], sort_keys=True).encode()).hexdigest()


def why_unwritten(error: BaseException, folder: Path) -> str:
    """The system's words for why nothing can be written, or nothing in `folder`; empty for any other error.

    Rust libraries, and shutil when it copies many files, give the number of a system error in their text alone.
    """
    in_text = re.search(r"(?:\(os error |\[Errno )(\d+)", str(error))
    number = getattr(error, "errno", None) or (int(in_text[1]) if in_text else 0)
    file = getattr(error, "filename", None)
    inside = isinstance(file, str) and Path(file).absolute().is_relative_to(folder.absolute())
    disk_is_full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    return os.strerror(number) if disk_is_full or (number and inside) else ""
