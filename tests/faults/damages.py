"""Damages to a file of data: to the file itself, to its bytes, or to its lines."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path


def damaged(rng: random.Random, file: Path) -> str:
    """Damage a file in one way; gives its name."""
    name = rng.choice([*_OF_BYTES, *_OF_BYTES, *_OF_LINES, *_OF_LINES, *_OF_FILES])
    content = file.read_bytes()
    if name in _OF_FILES:
        _OF_FILES[name](file)
    elif name in _OF_BYTES:
        file.write_bytes(_OF_BYTES[name](rng, content))
    else:
        packed = content[:2] == b"\x1f\x8b"
        lines = (gzip.decompress(content) if packed else content).split(b"\n")
        changed = b"\n".join(_OF_LINES[name](rng, lines))
        file.write_bytes(gzip.compress(changed) if packed else changed)
    return name


def _recoded(content: bytes, encoding: str) -> bytes:
    return content.decode("utf-8", "replace").encode(encoding, "replace")


def _scattered(rng: random.Random, content: bytes, inserted: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 8)):
        position = rng.randrange(len(changed) + 1)
        changed[position : position + rng.randrange(2)] = inserted
    return bytes(changed)


def _circle(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


_OF_FILES: dict[str, Callable[[Path], None]] = {
    "is gone": lambda file: file.unlink(),
    "is a folder": _folder,
    "links to itself": _circle,
}
_OF_BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "in UTF-16": lambda rng, content: _recoded(content, "utf-16"),
    "in latin-1": lambda rng, content: _recoded(content.replace(b"e", "é".encode()), "latin-1"),
    "with a BOM": lambda rng, content: b"\xef\xbb\xbf" + content,
    "with two BOMs": lambda rng, content: b"\xef\xbb\xbf" * 2 + content,
    "cut": lambda rng, content: content[: rng.randrange(len(content) + 1)],
    "empty": lambda rng, content: b"",
    "blank": lambda rng, content: b"\n \n\r\n",
    "twice": lambda rng, content: content + content,
    "with NUL": lambda rng, content: _scattered(rng, content, b"\x00"),
    "with quotes": lambda rng, content: _scattered(rng, content, b'"'),
    "with odd bytes": lambda rng, content: _scattered(rng, content, bytes([rng.randrange(128, 256)])),
    "with other bytes": lambda rng, content: _scattered(
        rng, content, rng.choice((b"\n", b"{", b"[", b",", b"\t", b"::", b"9"))
    ),
    "with CRLF": lambda rng, content: content.replace(b"\n", b"\r\n"),
    "with CR": lambda rng, content: content.replace(b"\n", b"\r"),
    "as gzip": lambda rng, content: gzip.compress(content),
    "as cut gzip": lambda rng, content: gzip.compress(content)[: -rng.randrange(1, 60)],
    "as a magic number": lambda rng, content: rng.choice(
        (b"PK\x05\x06", b"PAR1PAR1", b"\x1f\x8b", b"\x1f\x8b\x08\x00")
    ),
}


def _changed_line(change: Callable[[bytes], bytes]) -> Callable[[random.Random, list[bytes]], list[bytes]]:
    def changed(rng: random.Random, lines: list[bytes]) -> list[bytes]:
        position = rng.randrange(len(lines))
        return [*lines[:position], change(lines[position]), *lines[position + 1 :]]

    return changed


_OF_LINES: dict[str, Callable[[random.Random, list[bytes]], list[bytes]]] = {
    "of one line": lambda rng, lines: lines[:1],
    "without its first line": lambda rng, lines: lines[1:],
    "in another order": lambda rng, lines: rng.sample(lines, len(lines)),
    "with an endless line": _changed_line(lambda line: line + b"x" * 2_000_000),
    "with a half line": _changed_line(lambda line: line[: len(line) // 2]),
    "with a nested line": _changed_line(lambda line: b"[" * 5_000 + line),
    "with a nested object": _changed_line(lambda line: line.replace(b'"', b'"{', 3)),
    "with a list for a text": _changed_line(lambda line: line.replace(b': "', b': ["', 1).replace(b'",', b'"],', 1)),
    "with braces in a text": _changed_line(lambda line: line.replace(b': "', b': "{[', 9)),
    "with a huge number": _changed_line(lambda line: line.replace(b"1", b"1" * 5_000, 1)),
    "with NaN": _changed_line(lambda line: line.replace(b"1", b"NaN").replace(b"5", b"-Infinity")),
    "with null": _changed_line(lambda line: line.replace(b'"', b"null", 2)),
    "with surrogates": _changed_line(lambda line: line.replace(b"a", b"\\ud800")),
    "with minus": _changed_line(lambda line: line.replace(b"1", b"-1")),
    "with a line 500 times": lambda rng, lines: lines + [rng.choice(lines)] * 500,
    "with 500 bad lines": lambda rng, lines: lines + [b"{bad"] * 500,
}
