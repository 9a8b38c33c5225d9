"""Members of zip files, unpacked one at a time: to a place that the caller names, and no larger than they may be."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path

from reaemb_bench.errors import UserError

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
