"""Files of consecutive rows of one large table of vectors, mapped into memory where they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reaemb_bench.errors import UserError
from reaemb_bench.files import write_atomically

Rows = npt.NDArray[np.float32]


def shard_names(count: int) -> list[str]:
    """Names of the files of vectors, in the order of their rows."""
    if count == 1:
        return ["vectors.safetensors"]
    return [f"vectors-{place:05}-of-{count:05}.safetensors" for place in range(count)]


def write_shard(file: Path, values: Rows, facts: Mapping[str, str] | None = None) -> None:
    """Write rows (n, width), and facts about them, as safetensors; a crash leaves the whole file or none."""
    from safetensors.numpy import save

    write_atomically(file, save({"values": np.ascontiguousarray(values, dtype=np.float32)}, dict(facts or {})))


def shard_facts(file: Path) -> dict[str, str]:
    """The facts with which `write_shard` wrote a file."""
    header, _ = _header(file)
    return dict(header.get("__metadata__", {}))


def rows_of(shard: Rows | Path) -> Rows:
    """The rows of a shard; those of a file are memory-mapped, and a change of them stays in memory."""
    if not isinstance(shard, Path):
        return shard
    header, start = _header(shard)
    shape = tuple(header["values"]["shape"])
    if 0 in shape:
        # Nothing cannot be mapped.
        return np.empty(shape, dtype=np.float32)
    offset = start + header["values"]["data_offsets"][0]
    if offset + 4 * math.prod(shape) > shard.stat().st_size:
        raise UserError(f"{shard} is no whole file of vectors (it is cut short); delete it and run again")
    return np.asarray(np.memmap(shard, dtype="<f4", mode="c", offset=offset, shape=shape))


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The description at the start of a safetensors file, and the place at which the data begin."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            return dict(json.loads(stream.read(length))), 8 + length
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{file} is no whole file of vectors ({error}); delete it and run again") from None
