"""Files of a published data set, where its folder or the zip file that holds it lies."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import cast

from reaemb_bench.errors import UserError
from reaemb_bench.files import contents

_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


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
                with _opened(place, name) as inside, file.open("wb") as out:
                    shutil.copyfileobj(inside, out)
        except _UNREADABLE as error:
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
    except (*_UNREADABLE, UserError):
        return {"missing": str(place)}
    return made


@contextmanager
def _opened(place: Path, name: str) -> Iterator[BufferedIOBase]:
    with zipfile.ZipFile(place) as archive:
        found = [member for member in archive.namelist() if PurePosixPath(member).name == name]
        if len(found) != 1:
            held = f"{len(found)} files" if found else "no file"
            raise UserError(f"{place} holds {held} called {name}; set source.path to the published zip file")
        with archive.open(found[0]) as inside:
            yield cast("BufferedIOBase", inside)
