"""A server on this machine in the place of public homes, which can also behave as bad networks do."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Home:
    """Files by path (`HOST/PATH`), and how they are sent.

    broken: how many answers break off in the middle of what they have to send. statuses: of the next answers to GET,
    in place of the file. etags, ranges: whether ETags are sent, and parts of files. asked: method, path and Range of
    all that was asked for. sent: bytes of files.
    """

    files: dict[str, bytes]
    broken: int = 0
    statuses: list[int] = field(default_factory=list)
    etags: bool = True
    ranges: bool = True
    stalls: bool = False
    address: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0

    def etag(self, content: bytes) -> str:
        """A strong ETag."""
        return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Home]:
    """A home of these files as long as the block runs."""
    home = Home(files)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            wanted = self.headers.get("Range", "")
            home.asked.append((self.command, self.path, wanted))
            content = home.files.get(self.path.lstrip("/"))
            status = home.statuses.pop(0) if home.statuses and self.command == "GET" else 200
            if content is None or status != 200:
                self.send_response(404 if content is None else status)
                self.send_header("Content-Length", "0")
                self.send_header("Retry-After", "0")
                self.end_headers()
                return
            if home.stalls and self.command == "GET":
                time.sleep(1)
                self.close_connection = True
                return
            start, etag = 0, home.etag(content)
            if wanted and home.ranges and self.headers.get("If-Range") == etag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content) > 0:
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            if home.etags:
                self.send_header("ETag", etag)
            self.end_headers()
            if self.command == "HEAD":
                return
            rest = content[start:]
            if home.broken:
                home.broken -= 1
                rest = rest[: len(rest) // 2]
                self.close_connection = True
            home.sent += len(rest)
            self.wfile.write(rest)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    home.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield home
    finally:
        server.shutdown()
        server.server_close()


def packed(content: bytes) -> bytes:
    """The content as gzip, the same bytes each time."""
    return gzip.compress(content, mtime=0)
