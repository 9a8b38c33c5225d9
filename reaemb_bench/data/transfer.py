"""Files over HTTP, in as many attempts as it takes.

`requests` brings addresses, proxies and certificates. What follows a broken connection is here, because neither pooch
1.9 nor fsspec 2026.9 resumes a download: both open the file anew and ask for all of it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import requests
import urllib3

from reaemb_bench.core.component import Progress
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import write_atomically

Report = Callable[[Progress], None]

TIMEOUTS = (10.0, 60.0)
"""Seconds without a connection, and without a byte, after which an attempt has failed."""
ATTEMPTS = 4
"""How often in a row an address may fail without sending a byte."""
PAUSE = 1.0
"""Seconds before the second attempt; they double with each."""
_LONGEST_PAUSE = 60.0
_BLOCK = 1 << 20
# As it is stored, because sizes, ETags and parts of a file are those of what is sent.
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "reaemb-bench"}
_MAY_PASS = (408, 416, 425, 429)
"""Answers that blame the client and may be others the next time."""


def download(address: str, part: Path, report: Report) -> dict[str, Any]:
    """Writes a file to `part`, or appends what is missing of it; returns what its home says of it: see `ask`.

    The part stays if this is interrupted. Raises requests.RequestException if the address refuses, or fails
    `ATTEMPTS` times in a row without having sent anything, and UserError if the disk has no room.
    """
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _receive(address, part, report)
        except requests.RequestException as error:
            grown = part.exists() and part.stat().st_size > before
            failures = 1 if grown else failures + 1
            status = 0 if error.response is None else error.response.status_code
            if failures >= ATTEMPTS or (400 <= status < 500 and status not in _MAY_PASS):
                raise
            pause = PAUSE * 2 ** (failures - 1)
            with suppress(ValueError, AttributeError):
                pause = float(error.response.headers["Retry-After"])  # type: ignore[union-attr]
            time.sleep(min(max(pause, 0), _LONGEST_PAUSE))


def _receive(address: str, part: Path, report: Report) -> dict[str, Any]:
    """One attempt. Only what an ETag or a date proves to be the same file is added to."""
    begun = part.with_name(f"{part.name}.json")
    earlier = json.loads(begun.read_bytes()) if begun.exists() else {}
    size = part.stat().st_size if part.exists() else 0
    # A weak ETag does not tell bytes apart.
    etag = "" if earlier.get("etag", "").startswith("W/") else earlier.get("etag", "")
    headers = dict(_HEADERS)
    if size and earlier.get("address") == address and (same := etag or earlier.get("modified")):
        headers |= {"Range": f"bytes={size}-", "If-Range": same}
    try:
        with requests.get(address, headers=headers, stream=True, timeout=TIMEOUTS) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()
            answer.raise_for_status()
            facts = _facts(answer)
            if answer.status_code == requests.codes.partial_content:
                if not answer.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
                    part.unlink()
                    raise requests.ConnectionError("it sent another part of the file than was asked for")
            else:
                size = 0
                write_atomically(begun, json.dumps({"address": address, **facts}).encode())
            total = facts.get("size", 0)
            if total - size > (free := shutil.disk_usage(part.parent).free):
                raise UserError(
                    f"{address} takes {total - size:,} bytes more and {part.parent} has {free:,} free; make room or "
                    "choose another --cache"
                )
            with part.open("ab" if size else "wb") as stream:
                # A server that takes gzip for an encoding of a .gz file would otherwise have it unpacked.
                for block in answer.raw.stream(_BLOCK, decode_content=False):
                    stream.write(block)
                    size += len(block)
                    report(Progress(size // 10**6, total // 10**6, "MB"))
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error
    if total and size != total:
        raise requests.ConnectionError(f"it sent {size:,} of {total:,} bytes")
    return facts


@cache
def ask(addresses: tuple[str, ...]) -> dict[str, Any]:
    """Returns size, ETag (`etag`) and date (`modified`) of a file, as far as the first home that answers names them.

    Asked for once in a process; empty if no home answers.
    """
    for address in addresses:
        with suppress(requests.RequestException):
            answer = requests.head(address, headers=_HEADERS, timeout=TIMEOUTS[0], allow_redirects=True)
            answer.raise_for_status()
            return _facts(answer)
    return {}


def reason_of(error: requests.RequestException) -> str:
    """Returns why an address failed, in a few words."""
    if error.response is not None:
        return f"it answers {error.response.status_code} {error.response.reason}".rstrip()
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    # What urllib3 wraps around the system's words tells users nothing.
    return str(error).rpartition(": ")[2].strip("()'\"> ") or type(error).__name__


def _facts(answer: requests.Response) -> dict[str, Any]:
    headers = answer.headers
    size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
    said = {"etag": headers.get("ETag"), "modified": headers.get("Last-Modified")}
    return ({"size": int(size)} if size.isdigit() else {}) | {name: text for name, text in said.items() if text}
