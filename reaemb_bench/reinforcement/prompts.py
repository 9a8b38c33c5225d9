"""Prompts that a frozen language model has read, kept in memory and on disk: what it says of them never changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reaemb_bench.artifacts import Int64
from reaemb_bench.encoding.model import ThoughtModel
from reaemb_bench.encoding.prefix import Beginning, Prefix, Tokens
from reaemb_bench.reinforcement.shelves import Layout, Room, fill_files, lay_out, make_room

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
        room: Room,
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

    def _fill(self, first: Prefix, room: Room) -> None:
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


def _rows(read: Prefix | Beginning) -> Tensor:
    """(n, L, numbers a token)."""
    parts = [part.transpose(1, 2).flatten(2) for block in read.cache for part in block]
    return torch.cat([read.states, *parts], dim=2)


def _tails(prefix: Prefix, common: int) -> Tensor:
    """(tokens, numbers a token): the real tokens of all prompts but the first `common` of each."""
    return _rows(prefix)[prefix.mask.cumsum(1) * prefix.mask > common]


def _tensor(array: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
