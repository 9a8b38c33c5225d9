"""Safetensors files that say what they hold and carry a checksum: a damaged or foreign one counts as absent."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from reaemb_bench.core.artifacts import Int64
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import write_atomically
from reaemb_bench.encoder.shared_prefix import Prefix, SharedPrefix, Tokens
from reaemb_bench.encoder.thought_model import ThoughtModel


def write_sealed(file: Path, tensors: Mapping[str, Tensor], holds: str) -> None:
    """Write tensors so that a crash leaves the old file or the new one; holds: what they are, for `read_sealed`."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(file, save(ready, {"holds": holds, "sha256": _checksum(ready)}))


def read_sealed(file: Path, holds: str) -> dict[str, Tensor] | None:
    """The tensors, mapped into memory and read as they are touched; None where they are not there, whole, or others."""
    try:
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return tensors if facts == {"holds": holds, "sha256": _checksum(tensors)} else None


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # NumPy knows no bfloat16; bytes are bytes.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# Where what was read of the prompts is kept: rows of numbers in main memory, then in files, then nowhere.


@dataclass(frozen=True)
class CacheBudget:
    """Bytes for what was read of the prompts: in main memory, and in files below `folder` of about `shard` bytes each.

    A shard is what an interrupted run loses at most, and what is held in memory while a file is written.
    """

    memory: float
    disk: float
    folder: Path
    shard: int = 1 << 27


@dataclass(frozen=True)
class Layout:
    """Which blocks of prompts lie in memory, in which file, and nowhere; numbers of blocks, in order."""

    memory: list[int]
    shards: list[list[int]]
    nowhere: list[int]


def lay_out(sizes: Sequence[int], memory: float, disk: float, shard: int) -> Layout:
    """Blocks of the given bytes, in order: into memory while they fit, then into files of about `shard` bytes."""
    made = Layout([], [], [])
    used = in_shard = 0
    for block, size in enumerate(sizes):
        if not made.shards and used + size <= memory:
            made.memory.append(block)
            used += size
            continue
        if not made.shards:
            made.shards.append([])
            used = 0
        if used + size > disk:
            made.nowhere.append(block)
            continue
        if in_shard and in_shard + size > shard:
            made.shards.append([])
            in_shard = 0
        made.shards[-1].append(block)
        used += size
        in_shard += size
    return Layout(made.memory, [each for each in made.shards if each], made.nowhere)


def fill_files(
    folder: Path, shards: Sequence[Sequence[int]], read: Callable[[int], Tensor], holds: Callable[[int], str]
) -> list[Tensor]:
    """One tensor a shard, mapped from a file: the rows that `read` gives of its blocks, one below the other.

    holds: says what a block is made from; files that hold just that, left by an interrupted run, are not read again.
    """
    made = []
    for number, blocks in enumerate(shards):
        file = _file(folder, number)
        about = hashlib.sha256("".join(holds(block) for block in blocks).encode()).hexdigest()
        kept = read_sealed(file, about)
        if kept is None:
            _write(file, torch.cat([read(block) for block in blocks]), about)
            kept = read_sealed(file, about)
        if kept is None:
            raise UserError(f"{file} is not what was written a moment ago; the disk is faulty, choose another --store")
        made.append(kept["rows"])
    return made


def make_room(folder: Path, shards: int, needed: int) -> None:
    """Delete what is none of the first `shards` files, which will take `needed` bytes in all.

    Raises UserError where the disk has no room for those that are not there yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {_file(folder, number) for number in range(shards)}
    there = 0
    for file in folder.iterdir():
        if file in wanted:
            there += file.stat().st_size
        else:
            file.unlink()
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise UserError(
            f"reinforce.cache_disk_gb: {(needed - there) / 1e9:.1f} GB of prompts are to be written below {folder}, "
            f"where {free / 1e9:.1f} GB are free; lower it, shorten max_length or choose another --store"
        )


def _file(folder: Path, number: int) -> Path:
    return folder / f"prompts-{number:05}.safetensors"


def _write(file: Path, rows: Tensor, about: str) -> None:
    try:
        write_sealed(file, {"rows": rows}, about)
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}); lower reinforce.cache_disk_gb or choose another --store"
        ) from None


# Prompts that a frozen language model has read, kept in memory and on disk: what it says of them never changes.


_BLOCK = 8
"""Most prompts read at once: enough to keep a processor busy, few enough to read again where there is no room."""


class Prompts:
    """The prompts of some items, read once, before the first is asked for.

    A row of numbers is kept for each token: its last hidden state, which the reasoner attends to and poolings average,
    and its keys and values in every block, which the thoughts and EOS attend to: d + 2 * blocks * key/value heads *
    head size numbers of the language model's own type. The tokens with which all prompts begin are kept once, so an
    item costs that many numbers for each of its other tokens: in float32 SmolLM2-135M takes 48 kB a token, in bfloat16
    Qwen2.5-0.5B 14 kB. Prompts for which there is room neither in memory nor on disk are read at every use.

    An item is always read together with the same others, so its numbers depend neither on the room nor on what was
    asked for before: they are the same, bit for bit, in a run that was interrupted.

    rows: token ids of every item's prompt. items: (n,) the items that will be asked for. micro_batch: most prompts
    read at once. report: told how many of these items were read. Raises UserError where the disk is too small.
    """

    def __init__(
        self,
        model: ThoughtModel,
        rows: Sequence[Sequence[int]],
        items: Int64,
        room: CacheBudget,
        micro_batch: int = _BLOCK,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._model = model
        self._rows = rows
        self._report = report
        self._items = len(items)
        self._lengths = np.array([len(row) for row in rows])
        self._offsets = np.cumsum(self._lengths) - self._lengths
        self._ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
        with torch.no_grad():
            self._beginning = model.begin([rows[item] for item in items])
        self._common = 0 if self._beginning is None else len(self._beginning.ids)
        order = items[np.lexsort((items, self._lengths[items]))]
        size = min(micro_batch, _BLOCK)
        self._blocks = [order[start : start + size] for start in range(0, len(order), size)]
        self.reads = 0
        """Prompts that passed through the language model so far."""
        first = self._prefix(0)
        self._heads = (first.cache[0][0].shape[1], first.cache[0][0].shape[3])
        self._fill(first, room)

    def __call__(self, items: Int64) -> Prefix:
        """The prompts of `items` (n,) as one left-padded batch on the model's device, without gradient."""
        model, lengths = self._model, self._lengths[items]
        # The place of each column among the tokens of its prompt, negative at padding: (n, L).
        places = np.arange(lengths.max()) - (lengths.max() - lengths)[:, None]
        real = places >= 0
        # What stands at padding is masked everywhere.
        ids = np.where(real, self._ids[self._offsets[items][:, None] + places.clip(0)], model.eos_id)
        tokens = Tokens(_tensor(ids).to(model.device), _tensor(real).long().to(model.device))
        rows = self._gather(items, places).to(model.device).view(*places.shape, -1)
        width = model.width
        keys_and_values = rows[..., width:].view(*places.shape, -1, *self._heads).permute(2, 0, 3, 1, 4)
        cache = tuple(zip(keys_and_values[::2], keys_and_values[1::2], strict=True))
        # As `ThoughtModel.prefix` counts them: right padding would leave a prompt's first token at 0.
        padding = 0 if model.template.padding == "right" else (1 - tokens.mask).sum(dim=1, keepdim=True)
        return Prefix(rows[..., :width], tokens.ids, tokens.mask, tokens.indices + padding, cache)

    def _gather(self, items: Int64, places: Int64) -> Tensor:
        """Rows (n * L, numbers a token) of the prompts' tokens, zeros at padding."""
        tail = places >= self._common
        shelf = self._shelf[items]
        rows = places - self._common + self._start[items][:, None]
        # Row 0 of the memory is zeros, and the rows after it are the tokens that all prompts begin with.
        here = np.where(tail, np.where((shelf == 0)[:, None], rows, 0), (places + 1).clip(0))
        made = self._shelves[0].index_select(0, _tensor(here.ravel()))
        for number in np.unique(shelf[shelf != 0]).tolist():
            there = tail & (shelf == number)[:, None]
            kept = self._shelves[number] if number > 0 else self._read(-1 - number)
            made[_tensor(np.flatnonzero(there))] = kept.index_select(0, _tensor(rows[there]))
        return made

    def _fill(self, first: Prefix, room: CacheBudget) -> None:
        """Read all blocks for which there is room; first: block 0, read."""
        tails = _tails(first, self._common)
        zeros = tails.new_zeros(1, tails.shape[1])
        head = zeros if self._beginning is None else torch.cat([zeros, _rows(self._beginning)[0]])
        tokens = [int((self._lengths[block] - self._common).sum()) for block in self._blocks]
        per_token = tails.shape[1] * tails.element_size()
        layout = lay_out([count * per_token for count in tokens], room.memory - head.nbytes, room.disk, room.shard)
        self._place(layout, tokens, len(head))

        def read(block: int) -> Tensor:
            made = self._read(block) if block else tails.cpu()
            self._report(self.reads, self._items)
            return made

        memory = head.new_empty(len(head) + sum(tokens[block] for block in layout.memory), head.shape[1], device="cpu")
        memory[: len(head)] = head
        for block in layout.memory:
            start = self._start[self._blocks[block][0]]
            memory[start : start + tokens[block]] = read(block)
        self._shelves = [memory]
        self.size = memory.nbytes
        """Bytes in use in main memory."""
        self.without_room = sum(len(self._blocks[block]) for block in layout.nowhere)
        """Prompts that are read at every use."""
        self.disk_size = sum(tokens[block] for shard in layout.shards for block in shard) * per_token
        """Bytes in use on disk."""
        if layout.shards:
            make_room(room.folder, len(layout.shards), self.disk_size)
            self._shelves += fill_files(room.folder, layout.shards, read, self._describe)

    def _place(self, layout: Layout, tokens: Sequence[int], before: int) -> None:
        """Note each item's shelf and its first row there; shelf -1 - b stands for block b, which is read at need."""
        self._shelf = np.zeros(len(self._rows), dtype=np.int64)
        self._start = np.zeros(len(self._rows), dtype=np.int64)
        shelves = [layout.memory, *layout.shards, *([block] for block in layout.nowhere)]
        numbers = [*range(1 + len(layout.shards)), *(-1 - block for block in layout.nowhere)]
        for number, blocks in zip(numbers, shelves, strict=True):
            row = 0 if number else before
            for block in blocks:
                some = self._blocks[block]
                lengths = self._lengths[some] - self._common
                self._shelf[some] = number
                self._start[some] = row + np.cumsum(lengths) - lengths
                row += tokens[block]

    def _read(self, block: int) -> Tensor:
        """Rows of a block's tokens, those that all prompts begin with left out, one prompt after the other."""
        return _tails(self._prefix(block), self._common).cpu()

    @torch.no_grad()
    def _prefix(self, block: int) -> Prefix:
        self.reads += len(self._blocks[block])
        tokens = self._model.tokens([self._rows[item] for item in self._blocks[block]])
        return self._model.prefix(tokens, self._beginning)

    def _describe(self, block: int) -> str:
        """What the rows of a block are made from, beside the weights, which are the same in all of a step's runs."""
        rows = [list(self._rows[item]) for item in self._blocks[block]]
        return json.dumps([rows, self._common, str(self._shelves[0].dtype), str(self._model.device)])


def _rows(read: Prefix | SharedPrefix) -> Tensor:
    """(n, L, numbers a token)."""
    parts = [part.transpose(1, 2).flatten(2) for block in read.cache for part in block]
    return torch.cat([read.states, *parts], dim=2)


def _tails(prefix: Prefix, common: int) -> Tensor:
    """(tokens, numbers a token): the real tokens of all prompts but the first `common` of each."""
    return _rows(prefix)[prefix.mask.cumsum(1) * prefix.mask > common]


def _tensor(array: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
