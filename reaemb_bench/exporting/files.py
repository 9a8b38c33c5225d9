"""Item vectors as one file in a format that others read, written block by block."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from reaemb_bench.artifacts import Vectors
from reaemb_bench.vectors import IDS, STEM, Format


def write(folder: Path, chosen: Format, vectors: Vectors, ids: Sequence[str], titles: Sequence[str]) -> None:
    """Write vectors (items, width) and their items' ids and titles into `folder`.

    titles: empty where there are none. Parquet holds all in one file, and in memory once; of the others no more than
    a block is in memory.
    """
    if chosen == "parquet":
        _parquet(folder / f"{STEM}.parquet", vectors, ids, titles)
        return
    _FORMATS[chosen](folder / f"{STEM}.{chosen}", vectors)
    text = json.dumps({"ids": list(ids), "titles": list(titles)}, ensure_ascii=False, indent=1)
    (folder / IDS).write_text(f"{text}\n", encoding="utf-8")


def _npy(file: Path, vectors: Vectors) -> None:
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (vectors.items, vectors.width)}
        )
        for block in vectors.blocks():
            stream.write(np.ascontiguousarray(block, dtype="<f4").data)


def _safetensors(file: Path, vectors: Vectors) -> None:
    shape = [vectors.items, vectors.width]
    described = {STEM: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]}}
    header = json.dumps(described).encode()
    # Data begin at a multiple of 8.
    header += b" " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for block in vectors.blocks():
            stream.write(np.ascontiguousarray(block, dtype="<f4").data)


_FORMATS: Mapping[str, Callable[[Path, Vectors], None]] = {"npy": _npy, "safetensors": _safetensors}


def _parquet(file: Path, vectors: Vectors, ids: Sequence[str], titles: Sequence[str]) -> None:
    import polars

    kind = polars.Array(polars.Float32, vectors.width)
    rows = [polars.Series("vector", np.asarray(block), dtype=kind) for block in vectors.blocks()]
    column = polars.concat(rows, rechunk=False) if rows else polars.Series("vector", [], dtype=kind)
    named = {"id": list(ids), **({"title": list(titles)} if titles else {})}
    frame = polars.DataFrame(named, schema=dict.fromkeys(named, polars.String))
    frame.with_columns(column).write_parquet(file)
