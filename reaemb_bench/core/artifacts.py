"""Typed artefacts: what steps pass to each other and the store keeps.

Items and users are numbered from 0 in the order of their sorted keys, so that numbering never depends on held-out
rows; heads that need a padding row add it themselves. Every artefact writes itself into an empty folder and reads
itself back, as safetensors, parquet or JSON.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from reaemb_bench.core.errors import ArrayError, UserError
from reaemb_bench.core.files import write_atomically

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SHARD = 16_384
"""Most rows of one file of vectors."""

_OF_CORPUS = ("name", "instruction", "item_keys", "user_keys", "texts", "titles")
_OF_TARGETS = {"users": (np.int64, 1), "targets": (np.int32, 1), "candidates": (np.int32, 2)}
_OF_LISTS = ("recommended", "item_popularity", "history_hash", "sample_hash")


@runtime_checkable
class Artifact(Protocol):
    """What a step may take and give: something that can be written to a folder and read back unchanged."""

    def save(self, folder: Path) -> None:
        """Write everything into `folder`, which exists and is empty."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""


def as_array(name: str, value: Any, dtype: Any, dimensions: int) -> npt.NDArray[Any]:
    """The value as an array of this type; lists, torch tensors and other types are converted if no number changes.

    name: of the numbers, for the error. Raises ArrayError if they are of another shape, or not whole but should be.
    """
    if isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == dimensions:
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    try:
        array = np.asarray(value)
        if array.dtype.kind in "cmMSU" or np.ma.is_masked(value):
            raise TypeError("some are masked" if np.ma.is_masked(value) else f"they are of type {array.dtype}")
        with np.errstate(over="ignore", invalid="ignore"):
            converted: npt.NDArray[Any] = array.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArrayError(f"{name} are not an array of numbers ({error}); return one of {np.dtype(dtype)}") from None
    if np.issubdtype(dtype, np.integer) and not np.array_equal(converted, array):
        raise ArrayError(f"{name} are not all whole numbers of {np.dtype(dtype)}; return such numbers")
    if converted.ndim != dimensions:
        raise ArrayError(f"{name} are of shape {converted.shape}; return an array of {dimensions} dimensions")
    return converted


def _convert(artifact: Any, fields: Mapping[str, tuple[Any, int]]) -> None:
    """Replace the fields of a frozen artefact by arrays of these types and dimensions."""
    for name, (dtype, dimensions) in fields.items():
        label = f"{name} of {type(artifact).__name__}"
        object.__setattr__(artifact, name, as_array(label, getattr(artifact, name), dtype, dimensions))


@dataclass(frozen=True)
class Sequences:
    """Interactions of many users as flat arrays, each user's in time order.

    items: (interactions,) item numbers; offsets: (users + 1,), user u owns items[offsets[u]:offsets[u + 1]].
    """

    items: Int32
    offsets: Int64

    def __post_init__(self) -> None:
        """Raises ArrayError if a field is not an array of its type and shape."""
        _convert(self, {"items": (np.int32, 1), "offsets": (np.int64, 1)})

    @property
    def users(self) -> int:
        """Number of users, those without interactions included."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Int64:
        """Interactions of each user, (users,)."""
        return np.diff(self.offsets)

    def of(self, user: int) -> Int32:
        """The items of one user, oldest first."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @cached_property
    def owners(self) -> Int64:
        """The user of each interaction, (interactions,)."""
        return np.repeat(np.arange(self.users), self.lengths)

    def select(self, users: Int64) -> Sequences:
        """The sequences of `users`, in the order given."""
        lengths = self.lengths[users]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[:-1][users], lengths)
        return Sequences(self.items[positions], offsets)

    def followed_by(self, users: Int64, items: Int32) -> Sequences:
        """The same sequences with one more item at the end of each of `users` (each user named at most once)."""
        added = np.zeros(self.users, dtype=np.int64)
        added[users] = 1
        offsets = np.concatenate([[0], np.cumsum(self.lengths + added)]).astype(np.int64)
        longer = np.empty(offsets[-1], dtype=np.int32)
        longer[np.arange(len(self.items)) + np.repeat(offsets[:-1] - self.offsets[:-1], self.lengths)] = self.items
        longer[offsets[1:][users] - 1] = items
        return Sequences(longer, offsets)


@dataclass(frozen=True)
class Corpus:
    """All that a method may learn from: training sequences, item texts, ids. No held-out interaction enters it.

    texts are the attribute parts of the item prompts (`name is value; name is value; ...`), one an item; instruction
    is the line before them. item_keys and user_keys are the ids of the source.
    """

    name: str
    training: Sequences
    item_keys: tuple[str, ...]
    user_keys: tuple[str, ...]
    instruction: str
    texts: tuple[str, ...]
    titles: tuple[str, ...]

    @property
    def items(self) -> int:
        """Number of items in the catalogue, those without a training interaction included."""
        return len(self.item_keys)

    @property
    def users(self) -> int:
        """Number of users."""
        return self.training.users

    @cached_property
    def popularity(self) -> Int64:
        """Training interactions of each item, (items,)."""
        return np.bincount(self.training.items, minlength=self.items).astype(np.int64)

    def save(self, folder: Path) -> None:
        """Write the sequences as `training.safetensors` and all texts as `corpus.json`."""
        _save_arrays(folder / "training.safetensors", vars(self.training), "items", "offsets")
        _save_json(folder / "corpus.json", {name: vars(self)[name] for name in _OF_CORPUS})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        facts: dict[str, Any] = _load_json(folder / "corpus.json")
        facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
        return cls(training=Sequences(**_load_arrays(folder / "training.safetensors")), **facts)


@dataclass(frozen=True)
class ValidationTargets:
    """Validation targets, for early stopping and tuning.

    users: (n,) user numbers; targets: (n,) the item each must be ranked; candidates: (n, sample) item numbers drawn
    once, uniformly from the items that the user never touched, against which sampled metrics are computed.
    """

    users: Int64
    targets: Int32
    candidates: Int32

    def __post_init__(self) -> None:
        """Raises ArrayError if a field is not an array of its type and shape."""
        _convert(self, _OF_TARGETS)

    def save(self, folder: Path) -> None:
        """Write `validation_targets.safetensors`."""
        _save_arrays(folder / "validation_targets.safetensors", vars(self), "users", "targets", "candidates")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        return cls(**_load_arrays(folder / "validation_targets.safetensors"))


@dataclass(frozen=True)
class TestTargets:
    """Test targets; the planner gives them to judges alone.

    users, targets, candidates as in ValidationTargets. histories: for all users the training sequence and what else
    precedes the test target (under leave-last-two the validation item).
    """

    users: Int64
    targets: Int32
    candidates: Int32
    histories: Sequences

    def __post_init__(self) -> None:
        """Raises ArrayError if a field is not an array of its type and shape."""
        _convert(self, _OF_TARGETS)

    def save(self, folder: Path) -> None:
        """Write `test_targets.safetensors`."""
        arrays = {**vars(self), "items": self.histories.items, "offsets": self.histories.offsets}
        names = ("users", "targets", "candidates", "items", "offsets")
        _save_arrays(folder / "test_targets.safetensors", arrays, *names)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        arrays = _load_arrays(folder / "test_targets.safetensors")
        histories = Sequences(arrays.pop("items"), arrays.pop("offsets"))
        return cls(**arrays, histories=histories)


@dataclass(frozen=True)
class Encoder:
    """A language model that turns item prompts into vectors; the weights stay in `folder` until a step opens them.

    `encoder.json` in the folder holds the specs of its parts; the encoder room opens and writes such folders.
    """

    folder: Path

    def save(self, folder: Path) -> None:
        """Copy the encoder's files."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Point at the files; nothing is read yet."""
        return cls(folder)


class Vectors:
    """One vector an item, float32, row i belongs to item i: one array, or files that are read when they are needed."""

    def __init__(self, *shards: Float32 | Path, change: Callable[[Float32], Float32] | None = None) -> None:
        """shards: consecutive rows, as arrays (rows, width) or as files that `write_shard` wrote.

        change: applied to each block of rows (n, width) -> (n, other width) when it is read; None leaves it.
        """
        self._shards = tuple(
            shard if isinstance(shard, Path) else as_array("vectors", shard, np.float32, 2) for shard in shards
        )
        self._change = change

    @property
    def items(self) -> int:
        """Number of rows."""
        return sum(len(rows_of(shard)) for shard in self._shards)

    @cached_property
    def width(self) -> int:
        """Length of each vector."""
        rows = rows_of(self._shards[0])
        return int((rows if self._change is None else self._change(rows[:1])).shape[1])

    @cached_property
    def values(self) -> Float32:
        """All rows as one array (items, width): memory-mapped if they are one file, else in memory."""
        if len(self._shards) == 1 and self._change is None:
            return rows_of(self._shards[0])
        return np.concatenate(list(self.blocks()))

    def blocks(self, size: int = 4_096) -> Iterator[Float32]:
        """All rows in order, at most `size` at a time; only one file is mapped at once."""
        for shard in self._shards:
            rows = rows_of(shard)
            for start in range(0, len(rows), size):
                block = rows[start : start + size]
                yield block if self._change is None else self._change(block)

    def mapped(self, change: Callable[[Float32], Float32]) -> Vectors:
        """Vectors whose blocks of rows are `change` of these, computed when they are read."""
        before = self._change
        return Vectors(*self._shards, change=change if before is None else lambda rows: change(before(rows)))

    def save(self, folder: Path) -> None:
        """Write files of at most SHARD rows: `vectors.safetensors`, or `vectors-00000-of-00003.safetensors`, ..."""
        parts = [(shard, start) for shard in self._shards for start in range(0, max(len(rows_of(shard)), 1), SHARD)]
        for (shard, start), name in zip(parts, shard_names(len(parts)), strict=True):
            write_shard(folder / name, Vectors(rows_of(shard)[start : start + SHARD], change=self._change).values)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Point at the files; rows are read when they are asked for."""
        return cls(*sorted(folder.glob("vectors*.safetensors")))


def shard_names(count: int) -> list[str]:
    """Names of the files of vectors, in the order of their rows."""
    if count == 1:
        return ["vectors.safetensors"]
    return [f"vectors-{number:05}-of-{count:05}.safetensors" for number in range(count)]


def write_shard(file: Path, values: Float32, facts: Mapping[str, str] | None = None) -> None:
    """Write rows (n, width), and facts about them, as safetensors; a crash leaves the whole file or none."""
    from safetensors.numpy import save

    write_atomically(file, save({"values": np.ascontiguousarray(values, dtype=np.float32)}, dict(facts or {})))


def shard_facts(file: Path) -> dict[str, str]:
    """The facts with which `write_shard` wrote a file."""
    header, _ = _header(file)
    return dict(header.get("__metadata__", {}))


def rows_of(shard: Float32 | Path) -> Float32:
    """The rows of a shard; those of a file are memory-mapped, and writing to them changes the copy in memory alone."""
    if not isinstance(shard, Path):
        return shard
    header, start = _header(shard)
    shape = tuple(header["values"]["shape"])
    if 0 in shape:
        # An empty range of a file cannot be mapped.
        return np.empty(shape, dtype=np.float32)
    offset = start + header["values"]["data_offsets"][0]
    if offset + 4 * math.prod(shape) > shard.stat().st_size:
        raise UserError(f"{shard} is not a whole file of vectors (it is cut short); delete it and run again")
    return np.asarray(np.memmap(shard, dtype="<f4", mode="c", offset=offset, shape=shape))


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The description at the start of a safetensors file, and the byte at which the data begin."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            return dict(json.loads(stream.read(length))), 8 + length
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{file} is not a whole file of vectors ({error}); delete it and run again") from None


@dataclass(frozen=True)
class Ranker:
    """A trained recommender: the spec of the head that made it and the tensors that the head restores itself from."""

    head: dict[str, Any]
    tensors: dict[str, npt.NDArray[Any]]

    def save(self, folder: Path) -> None:
        """Write `ranker.json` and `ranker.safetensors`."""
        _save_json(folder / "ranker.json", self.head)
        _save_arrays(folder / "ranker.safetensors", self.tensors, *self.tensors)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        return cls(_load_json(folder / "ranker.json"), _load_arrays(folder / "ranker.safetensors"))


@dataclass(frozen=True)
class Ranks:
    """One row a test user, from which every table, group and test is computed; arrays without a shape are (users,).

    better, tied: items of the whole catalogue that score above, or equal to, the target (the target itself and the
    user's seen items left out). sampled_better, sampled_tied: the same against the stored candidates.
    popularity: training interactions of the target. history: items in the user's history. catalogue: how many items
    the target was ranked against, itself included. recommended: (users, top) the items with the highest scores of that
    catalogue, best first, -1 if it has no more; top is 0 if no lists were kept. item_popularity: (items,)
    training interactions of all items. history_hash, sample_hash: (users,) hashes of each user's history and stored
    candidates, by which results of other data are recognised; empty in results of versions that stored none.
    """

    users: Int64
    targets: Int32
    better: Int64
    tied: Int64
    sampled_better: Int64
    sampled_tied: Int64
    popularity: Int64
    history: Int64
    catalogue: Int64
    recommended: Int32 = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int32))
    item_popularity: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    history_hash: UInt64 = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    sample_hash: UInt64 = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))

    def __post_init__(self) -> None:
        """Raises ArrayError if a field is not an array of its type and shape."""
        types = {"targets": np.int32, "recommended": np.int32, "history_hash": np.uint64, "sample_hash": np.uint64}
        _convert(
            self, {name: (types.get(name, np.int64), 2 if name == "recommended" else 1) for name in list(vars(self))}
        )

    def save(self, folder: Path) -> None:
        """Write `ranks.parquet`, one row a user, and `lists.safetensors`."""
        import polars

        columns = {name: array for name, array in vars(self).items() if name not in _OF_LISTS}
        polars.DataFrame(columns).write_parquet(folder / "ranks.parquet")
        _save_arrays(folder / "lists.safetensors", vars(self), *_OF_LISTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        import polars

        # Without `glob` polars would take brackets and stars in a folder's name for a pattern.
        frame = polars.read_parquet(folder / "ranks.parquet", glob=False)
        columns = {column.name: column.to_numpy() for column in frame}
        return cls(**columns, **_load_arrays(folder / "lists.safetensors"))


@dataclass(frozen=True)
class Floors:
    """Ranks of methods that learn nothing, by name: what any number in the same table must beat."""

    by_name: dict[str, Ranks]

    def save(self, folder: Path) -> None:
        """Write one folder a floor."""
        _save_json(folder / "floors.json", list(self.by_name))
        for number, ranks in enumerate(self.by_name.values()):
            inside = folder / f"floor_{number}"
            inside.mkdir()
            ranks.save(inside)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        names = _load_json(folder / "floors.json")
        return cls({name: Ranks.load(folder / f"floor_{number}") for number, name in enumerate(names)})


@dataclass(frozen=True)
class Alignment:
    """How near to each other item vectors lie of items that users combine, by the name of the figure."""

    values: dict[str, float]

    def save(self, folder: Path) -> None:
        """Write `alignment.json`; figures that are not numbers, because there was nothing to measure, are null."""
        values = {name: value if np.isfinite(value) else None for name, value in self.values.items()}
        _save_json(folder / "alignment.json", values)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save` wrote."""
        values = _load_json(folder / "alignment.json")
        return cls({name: float("nan") if value is None else value for name, value in values.items()})


def _save_arrays(file: Path, arrays: Mapping[str, npt.NDArray[Any]], *names: str) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(arrays[name]) for name in names}, file)


def _load_arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    from safetensors.numpy import load_file

    arrays: dict[str, npt.NDArray[Any]] = load_file(file)
    return arrays


def _save_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _load_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
