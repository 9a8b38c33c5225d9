"""Item vectors as files that others read: safetensors, parquet or npy, written block by block and read back."""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.errors import UserError

if TYPE_CHECKING:
    from reaemb_bench.core.artifacts import Vectors

Format = Literal["safetensors", "parquet", "npy"]

STEM = "vectors"
"""The file is called `vectors.FORMAT`, its tensor `vectors`, and in parquet its column `vector`."""
IDS = "ids.json"
"""Ids and titles next to a format that has no room for them."""
_AGAIN = "export them again"


@dataclass(frozen=True)
class ItemVectors:
    """Item vectors (items, width) float32; row i belongs to ids[i]. titles: one an item, or empty."""

    ids: list[str]
    vectors: npt.NDArray[np.float32]
    titles: list[str]

    def __repr__(self) -> str:
        """Sizes alone, since there may be millions of numbers."""
        return f"ItemVectors({len(self.ids):,} items, width {self.vectors.shape[1]:,})"

    def of(self, item: str) -> npt.NDArray[np.float32]:
        """The vector (width,) of the item with this id. Raises UserError if there is none."""
        if item not in self._rows:
            close = difflib.get_close_matches(str(item), self.ids, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise UserError(f"no item has the id {item!r} among {len(self.ids):,}; ids are strings.{hint}")
        vector: npt.NDArray[np.float32] = self.vectors[self._rows[item]]
        return vector

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.ids)}


def write_vectors(folder: Path, form: Format, vectors: Vectors, ids: Sequence[str], titles: Sequence[str]) -> None:
    """Writes vectors (items, width) with the ids and titles of their items into `folder`.

    titles: may be empty. Parquet holds all vectors in memory once, the other formats one block.
    """
    file = folder / f"{STEM}.{form}"
    if form == "parquet":
        import polars

        kind = polars.Array(polars.Float32, vectors.width)
        blocks = [polars.Series("vector", np.asarray(block), dtype=kind) for block in vectors.blocks()]
        column = polars.concat(blocks, rechunk=False) if blocks else polars.Series("vector", [], dtype=kind)
        texts = {"id": list(ids), **({"title": list(titles)} if titles else {})}
        frame = polars.DataFrame(texts, schema=dict.fromkeys(texts, polars.String))
        frame.with_columns(column).write_parquet(file)
        return
    if form == "npy":
        stream = io.BytesIO()
        shape = (vectors.items, vectors.width)
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        header = stream.getvalue()
    else:
        size = 4 * vectors.items * vectors.width
        tensor = {"dtype": "F32", "shape": [vectors.items, vectors.width], "data_offsets": [0, size]}
        described = json.dumps({STEM: tensor}).encode()
        # Numbers begin at a multiple of 8.
        described += b" " * (-len(described) % 8)
        header = len(described).to_bytes(8, "little") + described
    with file.open("wb") as output:
        output.write(header)
        for block in vectors.blocks():
            output.write(np.ascontiguousarray(block, dtype="<f4").data)
    text = json.dumps({"ids": list(ids), "titles": list(titles)}, ensure_ascii=False, indent=1)
    (folder / IDS).write_text(f"{text}\n", encoding="utf-8")


def load_vectors(path: str | Path) -> ItemVectors:
    """The item vectors of an exported folder, or of a file in one: safetensors, parquet or npy; nothing is unpickled.

    Raises UserError if there are no such vectors, or ids and rows do not match.
    """
    file = Path(path)
    endings = [f".{form}" for form in get_args(Format)]
    if file.is_dir():
        files = [inside for ending in endings if (inside := file / f"{STEM}{ending}").is_file()]
        if len(files) != 1:
            what = "several" if files else "none"
            raise UserError(f"{file} holds {what} of {', '.join(STEM + ending for ending in endings)}; name one file")
        file = files[0]
    elif not file.is_file():
        raise UserError(f"there is no file or folder {file}; give what `reaemb-bench export` wrote")
    elif file.suffix not in endings:
        raise UserError(f"{file} is none of {', '.join(endings)}; give what `reaemb-bench export` wrote")
    ids_file = file.parent / IDS
    if file.suffix != ".parquet" and not ids_file.is_file():
        raise UserError(f"{ids_file} is missing, and without it nobody knows whose vectors these are; {_AGAIN}")
    vectors: npt.NDArray[Any]
    try:
        if file.suffix == ".parquet":
            import polars

            frame = polars.read_parquet(file, glob=False)
            ids, vectors = frame["id"].to_list(), frame["vector"].to_numpy()
            titles = frame["title"].to_list() if "title" in frame.columns else []
        else:
            facts = json.loads(ids_file.read_text(encoding="utf-8"))
            ids, titles = list(facts["ids"]), list(facts["titles"])
            if file.suffix == ".npy":
                vectors = np.load(file, mmap_mode="r", allow_pickle=False)
            else:
                from safetensors import safe_open

                with safe_open(file, framework="np") as tensors:
                    vectors = tensors.get_tensor(STEM)
    except Exception as error:  # noqa: BLE001 - each format has errors of its own for a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} holds no item vectors that can be read ({reason}); {_AGAIN}") from None
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise UserError(f"{file} holds {vectors.dtype} of shape {vectors.shape}, not float32 (items, width)")
    if len(ids) != len(vectors) or len(titles) not in (0, len(ids)):
        counts = f"{len(vectors):,} vectors for {len(ids):,} ids and {len(titles):,} titles"
        raise UserError(f"{file} holds {counts}; {_AGAIN}")
    if not all(isinstance(text, str) for text in (*ids, *titles)):
        raise UserError(f"{file}: ids and titles must be strings; {_AGAIN}")
    if len(set(ids)) < len(ids):
        raise UserError(f"{file}: {len(ids) - len(set(ids)):,} ids stand twice; {_AGAIN}")
    return ItemVectors(ids, vectors, titles)
