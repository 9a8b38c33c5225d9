"""Files of a published data set, where its folder or the zip file that holds it lies."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import cast

from reaemb_bench.archives import UNREADABLE, unpack
from reaemb_bench.errors import UserError
from reaemb_bench.files import contents


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
        return contents({name: place / name for name in names})
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
