"""Files at public homes: where they are kept, what keys hold of them, and that they stay what they were."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from reaemb_bench.core.component import Progress
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import cached_sha256, is_file, sha256_of, write_atomically
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.interactions import About

MIRROR = "REAEMB_BENCH_MIRROR"
"""Environment variable: an address that holds copies of the public homes as `HOST/PATH`, asked in their place."""
CACHE = "REAEMB_BENCH_CACHE"
"""Environment variable: the cache, in which planning looks for downloads; the option --cache sets it."""


@dataclass(frozen=True)
class PublishedFile:
    """A file at its public homes. addresses: the likeliest first. digest: `sha256:...` or `md5:...`, if it is known."""

    addresses: tuple[str, ...]
    digest: str = ""

    def path(self, cache: Path) -> Path:
        """Where it is kept in the cache: `downloads/HOST/PATH` of its first address."""
        address = urlsplit(self.addresses[0])
        return cache / "downloads" / address.netloc / address.path.lstrip("/")

    def homes(self) -> tuple[str, ...]:
        """The addresses to ask: on the mirror if there is one, else the public ones."""
        if mirror := os.environ.get(MIRROR):
            return tuple(f"{mirror.rstrip('/')}/{address.partition('://')[2]}" for address in self.addresses)
        return self.addresses

    def identity(self) -> dict[str, Any]:
        """What a key holds of it, the same before and after the download.

        This is its published digest; else what its home said of it, size and ETag or date, when it was downloaded or,
        before that, says now; else the sha256 of a file that was put there by hand. Without a file and without an
        answer its address is missing: a plan needs no data.
        """
        if self.digest:
            return {"digest": self.digest}
        file = self.path(_cache())
        if pin := _pin(file):
            return _key(pin)
        if is_file(file):
            return {"sha256": cached_sha256(file)}
        from reaemb_bench.data.transfer import ask

        return _key(ask(self.homes())) or {"missing": self.addresses[0]}


def fetch(
    files: Mapping[str, PublishedFile], name: str, about: About, machine: Machine, report: Callable[[Progress], None]
) -> dict[str, Path]:
    """Returns files by the same keys, from the cache, else from the first of its homes that sends one whole.

    name: of the source, for messages. about: its terms, printed before the first download. A download that broke off
    goes on where it stopped. Raises UserError if no home sends a file, or if it is not the one that was pinned.
    """
    paths, folder = {held: published.path(machine.cache) for held, published in files.items()}, _cache()
    if files and machine.cache.absolute() != folder.absolute():
        cure = f"set {CACHE} to the first"
        raise UserError(f"{name}: downloads go to {machine.cache}, but plans look for them in {folder}; {cure}")
    if missing := [file.name for file in paths.values() if not is_file(file)]:
        terms = about.terms()
        lines = (f"{name}: downloads {', '.join(missing)}", f"terms: {terms['licence']}", f"cite: {terms['citation']}")
        print(*lines, sep="\n  ", file=sys.stderr)
    for held, file in paths.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not is_file(file):
                _download(files[held], file, name, report)
        expected = files[held].digest or f"sha256:{_pin(file).get('sha256') or cached_sha256(file)}"
        if (digest := _digest(file, expected)) != expected:
            cure = "delete it, and it is downloaded again"
            raise UserError(f"{file} is not the file that was published ({digest}, not {expected}); {cure}")
    return paths


def _download(published: PublishedFile, file: Path, name: str, report: Callable[[Progress], None]) -> None:
    import requests

    from reaemb_bench.data.transfer import download, reason_of

    part, pin, reasons = file.with_name(f"{file.name}.part"), _pin(file), []
    for address in published.homes():
        try:
            facts = download(address, part, report)
        except requests.RequestException as error:
            reasons.append(f"{address}: {reason_of(error)}")
            continue
        fault = _fault(part, published.digest, file.suffix)
        facts = {"address": address, **facts, "sha256": sha256_of(part)}
        if not fault and pin.get("sha256", facts["sha256"]) != facts["sha256"]:
            fault = f"another file than was first downloaded; delete {_pin_file(file)} to use the new one"
        part.with_name(f"{part.name}.json").unlink(missing_ok=True)
        if fault:
            part.unlink()
            reasons.append(f"{address}: it sends {fault}")
            continue
        write_atomically(_pin_file(file), (json.dumps(facts, indent=1) + "\n").encode())
        part.replace(file)
        return
    cure = f"download {published.addresses[0]} by other means and save it as {file}"
    raise UserError(f"{name}: {file.name} cannot be downloaded ({'; '.join(reasons)}); {cure}")


def _fault(file: Path, digest: str, suffix: str) -> str:
    """What is wrong with a file that was sent; empty if nothing is known to be."""
    if digest:
        sent = _digest(file, digest)
        return "" if sent == digest else f"another file than was published ({sent}, not {digest})"
    if suffix == ".gz":
        try:
            with gzip.open(file) as stream:
                while stream.read(1 << 20):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            return f"no whole gzip file ({error})"
    return ""


def _digest(file: Path, like: str) -> str:
    """The digest of a file, of the same kind as `like`."""
    kind = like.partition(":")[0]
    if kind == "sha256":
        return f"sha256:{cached_sha256(file)}"
    with file.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, kind).hexdigest()}"


def _key(facts: dict[str, Any]) -> dict[str, Any]:
    """Size and ETag, or the date if there is no ETag, or else the sha256."""
    by = next((by for by in ("etag", "modified", "sha256") if facts.get(by)), None)
    return {} if by is None else {name: facts[name] for name in ("size", by) if name in facts}


def _pin_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.pin.json")


def _pin(file: Path) -> dict[str, Any]:
    """What was noted when the file was downloaded; nothing if it never was, or if the note cannot be read."""
    try:
        pin = json.loads(_pin_file(file).read_bytes())
    except (OSError, ValueError):
        return {}
    return pin if isinstance(pin, dict) else {}


def _cache() -> Path:
    return Path(os.environ.get(CACHE) or Machine().cache)
