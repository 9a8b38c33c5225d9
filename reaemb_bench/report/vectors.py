"""Exported item vectors, read back: what `reaemb-bench export` wrote, in any of its formats."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.errors import UserError

Format = Literal["safetensors", "parquet", "npy"]

STEM = "vectors"
"""The file of vectors is `vectors.FORMAT`; so are called its tensor, and its column `vector`."""
IDS = "ids.json"
"""Ids and titles beside a format that has no room for them."""


@dataclass(frozen=True)
class ItemVectors:
    """Item vectors (items, width) float32; row i belongs to ids[i]. titles: one an item, or empty."""

    ids: list[str]
    vectors: npt.NDArray[np.float32]
    titles: list[str]

    def of(self, item: str) -> npt.NDArray[np.float32]:
        """The vector (width,) of the item with this id. Raises UserError where there is none."""
        if item not in self._places:
            close = difflib.get_close_matches(str(item), self.ids, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise UserError(f"no item has the id {item!r} among {len(self.ids):,}; ids are strings.{hint}")
        row: npt.NDArray[np.float32] = self.vectors[self._places[item]]
        return row

    @cached_property
    def _places(self) -> dict[str, int]:
        return {item: place for place, item in enumerate(self.ids)}


def load_vectors(place: str | Path) -> ItemVectors:
    """The item vectors in an exported folder, or in a file of one: safetensors, parquet or npy.

    Nothing is unpickled. Raises UserError where the place holds no such vectors, or ids and rows do not match.
    """
    file = _file(Path(place))
    try:
        ids, vectors, titles = _of_parquet(file) if file.suffix == ".parquet" else _beside_ids(file)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - each format has errors of its own for a damaged file
        raise UserError(f"{file} holds no item vectors that can be read ({_line(error)}); export them again") from None
    _check(file, ids, vectors, titles)
    return ItemVectors(ids, vectors, titles)


def _file(place: Path) -> Path:
    endings = [f".{each}" for each in get_args(Format)]
    if not place.is_dir():
        if not place.is_file():
            raise UserError(f"there is no file or folder {place}; give what `reaemb-bench export` wrote")
        if place.suffix not in endings:
            raise UserError(f"{place} is none of {', '.join(endings)}; give what `reaemb-bench export` wrote")
        return place
    found = [place / f"{STEM}{ending}" for ending in endings if (place / f"{STEM}{ending}").is_file()]
    if len(found) != 1:
        what = "none" if not found else "several"
        raise UserError(f"{place} holds {what} of {', '.join(STEM + each for each in endings)}; name one file")
    return found[0]


def _beside_ids(file: Path) -> tuple[list[str], npt.NDArray[Any], list[str]]:
    beside = file.parent / IDS
    if not beside.is_file():
        raise UserError(f"{beside} is missing, and without it nobody knows whose vectors these are; export them again")
    facts = json.loads(beside.read_text(encoding="utf-8"))
    return list(facts["ids"]), _of_npy(file) if file.suffix == ".npy" else _of_safetensors(file), list(facts["titles"])


def _of_npy(file: Path) -> npt.NDArray[Any]:
    mapped: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return mapped


def _of_safetensors(file: Path) -> npt.NDArray[Any]:
    from safetensors import safe_open

    with safe_open(file, framework="np") as tensors:
        read: npt.NDArray[Any] = tensors.get_tensor(STEM)
    return read


def _of_parquet(file: Path) -> tuple[list[str], npt.NDArray[Any], list[str]]:
    import polars

    frame = polars.read_parquet(file)
    titles = frame["title"].to_list() if "title" in frame.columns else []
    return frame["id"].to_list(), frame["vector"].to_numpy(), titles


def _check(file: Path, ids: list[str], vectors: npt.NDArray[Any], titles: list[str]) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise UserError(f"{file} holds {vectors.dtype} of shape {vectors.shape}, not float32 (items, width)")
    if len(ids) != len(vectors) or len(titles) not in (0, len(ids)):
        raise UserError(
            f"{file} holds {len(vectors):,} vectors for {len(ids):,} ids and {len(titles):,} titles; export them again"
        )
    if not all(isinstance(each, str) for each in (*ids, *titles)):
        raise UserError(f"{file}: ids and titles must be strings; export them again")
    if len(set(ids)) < len(ids):
        raise UserError(f"{file}: {len(ids) - len(set(ids)):,} ids stand twice; export them again")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
