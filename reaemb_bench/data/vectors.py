"""The step `vectors`: item vectors of any embedder from files, matched to items by id, never by the order of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars

from reaemb_bench.core.artifacts import SHARD, Corpus, Float32, Vectors
from reaemb_bench.core.component import Context, NotHashed, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import contents_of, is_file
from reaemb_bench.data.columns import guess, letters
from reaemb_bench.data.lines import blocks, lines, parse_json
from reaemb_bench.data.sources.table import SUFFIXES, TableFile, keys, read_table, require_column
from reaemb_bench.data.text import as_text

_ARRAYS = (".npy", ".npz", ".safetensors")
_FORMATS = (*_ARRAYS, *SUFFIXES)
_IDS = ("ids.json", "ids.txt", "ids.npy", "ids.csv")
_OF_VECTORS = ("vector", "vectors", "embedding", "embeddings", "emb")
_ROW_NUMBERS = ("", "index", "unnamed", "indexlevel0")
"""What the column of row numbers is called, letters alone, that pandas writes into tables."""
_SHOWN = 3

Rows: TypeAlias = "tuple[polars.Series, polars.Series | npt.NDArray[Any]]"
"""Ids (n,) as they are written, and n lists of numbers or one array (n, width)."""


class ReadVectors(Step):
    """Read item vectors of any embedder from files, matched to the items by id.

    A table (parquet, jsonl, csv, tsv) holds ids and vectors: one column of lists, or of texts such as `[0.1, 0.2]`, or
    one column for each number. npy, npz and safetensors hold an array (vectors, width), and `ids` the ids of its rows.
    A folder is one that `reaemb-bench export` wrote. Nothing is unpickled.
    """

    path: Annotated[Path, NotHashed("identity hashes the files that are read")]
    """File of the vectors, of any type of number, or an exported folder."""
    ids: Annotated[Path | None, NotHashed("identity hashes the files that are read")] = None
    """File of the ids of an array's rows, in their order: a list in JSON, text with one a line, npy, or a table. By
    default the array `ids` of an npz, or else the file ids.json, ids.txt, ids.npy or ids.csv next to the vectors."""
    id_column: str = ""
    """Column of the ids; empty goes by the usual names."""
    vector_column: str = ""
    """Column of the vectors, or their name in npz and safetensors; empty goes by what the file holds."""
    missing: Literal["error", "mean", "zeros"] = "error"
    """What an item gets that has no vector in the file: the run stops, the mean of the other items, or zeros."""

    def identity(self) -> dict[str, Any]:
        """Settings and contents without paths: the same files in another folder are the same vectors."""
        file, ids = self.files()
        contents = {"path": contents_of(file), "ids": None if ids is None else contents_of(ids)}
        return {**super().identity(), **contents, "format": file.suffix.lower()}

    def files(self) -> tuple[Path, Path | None]:
        """Returns the file of the vectors, and that of their ids if they are not in it.

        Raises UserError if a folder holds none or several that could be meant.
        """
        file = self.path.expanduser()
        if file.is_dir():
            file = _only_file(file, [f"vectors{suffix}" for suffix in _FORMATS], "path")
        if self.ids is not None:
            return file, self.ids.expanduser()
        if file.suffix.lower() not in (".npy", ".safetensors"):
            return file, None
        present = [name for name in _IDS if is_file(file.with_name(name))]
        return file, _only_file(file.parent, present, "ids") if present else None

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """Returns one vector an item, (items, width). Raises UserError naming file, row or id, and the cure."""
        file, item_of = self.files()[0], {key: item for item, key in enumerate(corpus.item_keys)}
        values, present, count, example = None, np.zeros(corpus.items, dtype=bool), 0, ""
        for ids, block in self.blocks():
            if values is None:
                # A mapped file, so that memory holds one block; rows that are never written are zeros.
                shape = (corpus.items, block.shape[1])
                part = context.scratch / "vectors.npy"
                values = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
            items = np.array([item_of.get(key, -1) for key in ids])
            values[items[items >= 0]] = block[items >= 0]
            present[items[items >= 0]] = True
            count, example = count + len(ids), example or ids[0]
        lacking = np.flatnonzero(~present)
        named = ", ".join(f"'{corpus.item_keys[item]}'" for item in lacking[:_SHOWN])
        if len(lacking) == corpus.items:
            raise UserError(
                f"{file}: none of its ids, such as '{example}', is that of an item, such as {named}; give the vectors "
                "of these items, or set id_column"
            )
        some = f"{len(lacking):,} of {corpus.items:,} items, such as {named},"
        if len(lacking) and self.missing == "error":
            raise UserError(f'{file}: {some} have no vector; embed them too, or set missing = "mean" or "zeros"')
        assert values is not None
        facts = {"vectors_in_file": count, "items_without_vector": len(lacking)}
        context.note({**facts, "surplus_vectors": count - corpus.items + len(lacking)})
        if len(lacking):
            filling = "zeros" if self.missing == "zeros" else "the mean of the others"
            context.note({"warning: vectors": f"{some} have no vector in {file.name} and get {filling}"})
        if len(lacking) and self.missing == "mean":
            # In the order of the items, so that the same vectors in other rows give the same bits.
            starts = range(0, corpus.items, SHARD)
            sums = [values[start : start + SHARD].sum(axis=0, dtype=np.float64) for start in starts]
            values[lacking] = np.sum(sums, axis=0) / present.sum()
        return Vectors(values)

    def blocks(self) -> Iterator[tuple[polars.Series, Float32]]:
        """Yields ids (n,) as text and their vectors (n, width) in the order of the file, some thousand rows at a time.

        Raises UserError at the first row without an id, with an id that stood before, with another width than the
        first, or with something that is not a finite number of float32.
        """
        file, ids_file = self.files()
        suffix, row_of, width = file.suffix.lower(), dict[str, int](), 0
        if not is_file(file):
            raise UserError(
                f"there is no file {file} (setting path); paths are relative to the recipe, else to the current folder"
            )
        if suffix not in _FORMATS:
            raise UserError(
                f"{file}: the suffix '{suffix}' is none of {', '.join(_FORMATS)}; save them as one of these"
            )
        if suffix not in _ARRAYS and ids_file is not None:
            raise UserError(f"{file} holds the ids of its rows itself; leave the setting ids out")
        read = self._array_rows(file, ids_file) if suffix in _ARRAYS else self._table_rows(file)
        for written, numbers in read:
            ids, first = keys(written), len(row_of)
            rows = [f"{file}, row {first + row + 1} (id '{key}')" for row, key in enumerate(ids)]
            for row, key in enumerate(ids, first):
                if key is None:
                    raise UserError(f"{file}, row {row + 1} has no id; give it one, or leave it out")
                if row_of.setdefault(key, row) != row:
                    where = f"rows {row_of[key] + 1} and {row + 1}"
                    raise UserError(f"{file}: the id '{key}' stands twice, in {where}; keep one of them")
            if isinstance(numbers, np.ndarray):
                values: npt.NDArray[Any] = numbers
            else:
                lengths = numbers.list.len().fill_null(0).to_numpy()
                width = width or int(lengths[0])
                if (wrong := np.flatnonzero((lengths != width) | (lengths == 0))).size:
                    row, other = rows[wrong[0]], f", and the first row {width}" if width else ""
                    cure = "embed all items with the same model, or set vector_column"
                    raise UserError(f"{row} has {lengths[wrong[0]]} numbers{other}; {cure}")
                flat = numbers.explode()
                # Text is read as float64 first, as other programs read it.
                cast = flat.cast(polars.Float64, strict=False)
                if (row_number := cast.is_null().arg_max()) is not None and cast.null_count():
                    content = "nothing" if flat[row_number] is None else f"'{as_text(flat[row_number])[:40]}'"
                    cure = "write numbers, or name the column of the vectors in vector_column"
                    raise UserError(f"{rows[row_number // width]} holds {content} instead of a number; {cure}")
                values = cast.to_numpy().reshape(-1, width)
            with np.errstate(over="ignore"):
                block: Float32 = values.astype(np.float32)
            if (wrong := np.flatnonzero(~np.isfinite(block).all(axis=1))).size:
                worst = values[wrong[0]][~np.isfinite(block[wrong[0]])][0]
                cure = "embed that item again, or leave the row out and set missing"
                raise UserError(f"{rows[wrong[0]]} holds {worst}, which is not a finite number of float32; {cure}")
            yield ids, block
        if not row_of:
            raise UserError(f"{file} holds no vectors; give a file with data")

    def _array_rows(self, file: Path, ids_file: Path | None) -> Iterator[Rows]:
        """Yields the rows of an array a part at a time, mapped from the file unless it is an npz."""
        ids = None if ids_file is None else _read_ids(ids_file, self.id_column)
        with _reading(file):
            if file.suffix.lower() == ".safetensors":
                from safetensors import safe_open

                tensors: Any = safe_open(file, "np")
                name = self._name(file, list(tensors.keys()))
                array = tensors.get_slice(name)
                shape, kind = tuple(array.get_shape()), str(array.get_dtype())
                numeric = kind[0] in "FIU" or kind == "BF16"
                if kind.startswith(("BF", "F8")):
                    # numpy has no such type.
                    tensors = safe_open(file, "pt")
                    array = tensors.get_slice(name)
            else:
                array = np.load(file, mmap_mode="r", allow_pickle=False)
                if file.suffix.lower() == ".npz":
                    if ids is None and "ids" in array.files:
                        ids = _texts(array["ids"].tolist())
                    array = array[self._name(file, [name for name in array.files if name != "ids"])]
                shape, kind, numeric = array.shape, str(array.dtype), array.dtype.kind in "fiu"
        if len(shape) != 2 or 0 in shape or not numeric:
            raise UserError(f"{file} holds {kind} of shape {shape}; save the vectors as numbers (vectors, width)")
        if ids is None:
            cure = "save them in it as ids" if file.suffix.lower() == ".npz" else f"put {_IDS[0]} next to it"
            raise UserError(f"{file}: nothing says whose vectors these are; {cure}, or set ids")
        if len(ids) != shape[0]:
            who = ids_file or file
            raise UserError(f"{who} has {len(ids):,} ids for the {shape[0]:,} vectors of {file}; give one for each")
        for start in range(0, shape[0], SHARD):
            # safetensors refuses a slice that goes beyond the end.
            part = array[start : min(start + SHARD, shape[0])]
            yield ids[start : start + SHARD], part if isinstance(part, np.ndarray) else part.float().numpy()

    def _name(self, file: Path, names: Sequence[str]) -> str:
        """The name of the vectors among the arrays of a file."""
        name = self.vector_column or ("vectors" if "vectors" in names else "")
        if name in names or (len(names) == 1 and not name):
            return name or names[0]
        raise UserError(f"{file} holds {', '.join(names) or 'nothing'}; name the vectors in vector_column")

    def _table_rows(self, file: Path) -> Iterator[Rows]:
        """Yields the rows of a table a part at a time."""
        roles: tuple[str, list[str]] | None = None
        for frame in filter(len, _frames(file)):
            id_column, columns = roles = roles or self._roles(file, frame)
            for name in columns:
                dtype = frame[name].dtype
                inner = dtype.inner if isinstance(dtype, polars.List | polars.Array) else dtype
                if not (inner.is_numeric() or inner in (polars.String, polars.Null)):
                    raise UserError(f"{file}: the column '{name}' holds {dtype}, not numbers; set vector_column")
            lists = frame[columns[0]]
            if len(columns) > 1 or not (lists.dtype.is_nested() or lists.dtype == polars.String):
                lists = frame.select(polars.concat_list(columns)).to_series()
            elif lists.dtype == polars.String:
                lists = lists.str.strip_chars("[]() \n").str.replace_all(r"[\s,;]+", " ").str.split(" ")
            elif isinstance(lists.dtype, polars.Array):
                lists = lists.arr.to_list()
            yield TableFile(file, tuple(frame.columns), frame).column(id_column, "id_column"), lists

    def _roles(self, file: Path, frame: polars.DataFrame) -> tuple[str, list[str]]:
        """The column of the ids, and the column of the vectors or those of their numbers. Raises UserError."""
        columns = frame.columns
        id_column = self.id_column or guess(columns, "item_key")
        if not id_column:
            raise UserError(f"{file}: no column ({', '.join(columns)[:200]}) looks like that of the ids; set id_column")
        require_column(file, columns, id_column, "id_column")
        if self.vector_column:
            require_column(file, columns, self.vector_column, "vector_column")
            return id_column, [self.vector_column]
        others = [name for name in columns if name != id_column and letters(name) not in _ROW_NUMBERS]
        lists = [name for name in others if frame[name].dtype.is_nested() or str(frame[name][0]).startswith("[")]
        named = [name for name in lists or others if letters(name) in _OF_VECTORS]
        vectors = named if len(named) == 1 else lists or others
        if not vectors or (len(lists) > 1 and len(vectors) > 1):
            raise UserError(f"{file}: no one column ({', '.join(columns)[:200]}) holds vectors; set vector_column")
        return id_column, vectors


def _frames(file: Path) -> Iterator[polars.DataFrame]:
    """Yields the rows of a table some at a time; cells of CSV and TSV are text."""
    form = SUFFIXES[file.suffix.lower()]
    if form == "parquet":
        with _reading(file):
            table = polars.scan_parquet(file, glob=False)
            height = table.select(polars.len()).collect().item()
        for start in range(0, height, SHARD):
            with _reading(file):
                yield table.slice(start, SHARD).collect()
    elif form == "jsonl":
        numbered, columns = lines(file), list[str]()
        while batch := list(islice(numbered, 1_000)):
            rows = []
            for number, line in batch:
                try:
                    rows.append(parse_json(line, constants=True))
                except ValueError as error:
                    raise UserError(f"{file}, line {number}: {error}; correct that line") from None
            columns = columns or list(rows[0])
            yield polars.DataFrame({name: _json_column([row.get(name) for row in rows]) for name in columns})
    else:
        header, held = b"", b""
        for block in blocks(file):
            held += block
            # A row with an open quote goes on in the next block.
            if held.count(b'"') % 2 == 0:
                with _reading(file):
                    separator = "\t" if form == "tsv" else ","
                    yield polars.read_csv(header + held, separator=separator, infer_schema=False)
                header, held = header or held.partition(b"\n")[0] + b"\n", b""
        if held:
            raise UserError(f"{file}: a quote is opened and never closed; close it")


def _json_column(values: list[Any]) -> polars.Series:
    """Values of one name in JSON: lists stay lists, of texts if they do not hold numbers alone; others become texts."""
    if not any(isinstance(value, list) for value in values):
        return polars.Series(values=[as_text(value) or None for value in values], dtype=polars.String)
    lists = [value if isinstance(value, list) else [] for value in values]
    try:
        return polars.Series(values=lists, dtype=polars.List(polars.Float64))
    except (TypeError, ValueError, OverflowError, polars.exceptions.PolarsError):
        texts = [[None if part is None else as_text(part) for part in value] for value in lists]
        return polars.Series(values=texts, dtype=polars.List(polars.String))


def _read_ids(file: Path, id_column: str) -> polars.Series:
    """Ids as text from a file, in its order. Raises UserError."""
    if not is_file(file):
        raise UserError(f"there is no file {file} (setting ids); paths are relative to the recipe, else to this folder")
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        table = read_table(file, "auto", "", '"', "ids")
        only = table.columns[0] if len(table.columns) == 1 else ""
        return keys(table.column(id_column or only or guess(table.columns, "item_key"), "id_column"))
    with _reading(file):
        if suffix == ".npy":
            return _texts(np.load(file, allow_pickle=False).tolist())
        if suffix != ".json":
            return _texts([line.decode("utf-8") for _, line in lines(file)])
        content = json.loads(file.read_text(encoding="utf-8"))
        return _texts(content.get("ids", ()) if isinstance(content, dict) else content)


def _texts(values: Sequence[object]) -> polars.Series:
    return polars.Series(values=[as_text(value) for value in values], dtype=polars.String)


def _only_file(folder: Path, names: Sequence[str], setting: str) -> Path:
    """The only file of these names in a folder. Raises UserError if there are none or several."""
    present = [folder / name for name in names if is_file(folder / name)]
    if len(present) != 1:
        what = f"holds {', '.join(file.name for file in present)}" if present else f"holds none of {', '.join(names)}"
        raise UserError(f"{folder} {what}; name one file in the setting {setting}")
    return present[0]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """A block in which an error of a reader becomes one line that names the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - each format has errors of its own for a damaged file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} cannot be read ({reason}); write it again") from None
