"""What a frozen language model says of prompts, computed once and kept in one file that is mapped into memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reaemb_bench.core.artifacts import Int64
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.shared_prefix import Prefix, SharedPrefix, Tokens
from reaemb_bench.encoder.thought_model import ThoughtModel

_BLOCK = 8
"""Most prompts read at once: enough to keep a processor busy, few enough to read again at every use."""


class Prompts:
    """The prompts of some items, read once, before the first is asked for.

    A row of numbers is kept for each token: its last hidden state, which the reasoner attends to and poolings average,
    and its keys and values in every block, which the thoughts and EOS attend to: d + 2 * blocks * key/value heads *
    head size numbers of the language model's own type. The tokens with which all prompts begin are kept once, so an
    item costs that many numbers for each of its other tokens: in float32 SmolLM2-135M takes 48 kB a token, in bfloat16
    Qwen2.5-0.5B 14 kB. The operating system keeps as much of the file in memory as there is room for.

    An item is always read together with the same others, so its numbers depend neither on the limit nor on what was
    asked for before: they are the same, bit for bit, in a run that was interrupted.

    rows: token ids of every item's prompt. items: (n,) the items that will be asked for. limit: most bytes of the
    file in `folder`; prompts beyond it are read at every use. micro_batch: most prompts read at once. report: called
    with how many of the n items were read. Raises UserError if the disk is too small.
    """

    def __init__(
        self,
        model: ThoughtModel,
        rows: Sequence[Sequence[int]],
        items: Int64,
        folder: Path,
        limit: float,
        micro_batch: int = _BLOCK,
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._model = model
        self._rows = rows
        self._lengths = np.array([len(row) for row in rows])
        self._offsets = np.cumsum(self._lengths) - self._lengths
        self._ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
        with torch.no_grad():
            self._shared = model.begin([rows[item] for item in items])
        self._common = 0 if self._shared is None else len(self._shared.ids)
        order = items[np.lexsort((items, self._lengths[items]))]
        size = min(micro_batch, _BLOCK)
        self._blocks = [order[start : start + size] for start in range(0, len(order), size)]
        self.reads = 0
        """Prompts that passed through the language model so far."""

        first = self._prefix(0)
        # Blocks may differ in their heads, and there are none if the model reads prompts again with each thought.
        self._heads = [(part.shape[1], part.shape[3]) for block in first.cache for part in block]
        tails = self._tails(first)
        zeros = tails.new_zeros(1, tails.shape[1])
        # Row 0 stands at padding, the rows after it are the tokens with which all prompts begin.
        head = zeros if self._shared is None else torch.cat([zeros, _rows(self._shared)[0].cpu()])
        tokens = np.array([int((self._lengths[block] - self._common).sum()) for block in self._blocks])
        ends = len(head) + np.cumsum(tokens)
        row_bytes = tails.shape[1] * tails.element_size()
        # Blocks grow with their number, so those that fit are the first ones.
        fitting = int((ends * row_bytes <= limit).sum())
        self._start = np.zeros(len(rows), dtype=np.int64)
        self._unkept = np.full(len(rows), -1)
        for number, block in enumerate(self._blocks):
            lengths = self._lengths[block] - self._common
            before = ends[number] - tokens[number] if number < fitting else 0
            self._start[block] = before + np.cumsum(lengths) - lengths
            self._unkept[block] = -1 if number < fitting else number
        self.size = row_bytes * int(ends[fitting - 1]) if fitting else 0
        """Bytes of the file."""
        self.without_room = sum(map(len, self._blocks[fitting:]))
        """Prompts that are read at every use."""

        def part(number: int) -> Tensor:
            if number == 0:
                return head
            read = self._tails(self._prefix(number - 1)) if number > 1 else tails
            report(self.reads, len(items))
            return read

        self._kept = head
        if fitting:
            kept_rows = [list(rows[item]) for block in self._blocks[:fitting] for item in block]
            about = json.dumps([kept_rows, self._common, size, str(head.dtype), str(model.device)])
            sizes = [row_bytes * count for count in [len(head), *tokens[:fitting].tolist()]]
            mapped = _mapped(folder, about, sizes, lambda number: part(number).reshape(-1).view(torch.uint8).numpy())
            self._kept = torch.from_numpy(mapped).view(head.dtype).view(-1, head.shape[1])

    def __call__(self, items: Int64) -> Prefix:
        """The prompts of `items` (n,) as one left-padded batch on the model's device, without gradient."""
        model, lengths = self._model, self._lengths[items]
        # The position of each column among the tokens of its prompt, negative at padding: (n, L).
        positions = np.arange(lengths.max()) - (lengths.max() - lengths)[:, None]
        real = positions >= 0
        # What stands at padding is masked everywhere.
        ids = np.where(real, self._ids[self._offsets[items][:, None] + positions.clip(0)], model.eos_id)
        tokens = Tokens(_tensor(ids).to(model.device), _tensor(real).long().to(model.device))
        rows = self._gather(items, positions).to(model.device).view(*positions.shape, -1)
        width = model.width
        parts = torch.split(rows[..., width:], [heads * size for heads, size in self._heads], dim=2)
        keys_and_values = [
            part.view(*positions.shape, *heads).transpose(1, 2) for part, heads in zip(parts, self._heads, strict=True)
        ]
        cache = tuple(zip(keys_and_values[::2], keys_and_values[1::2], strict=True))
        # As `ThoughtModel.prefix` counts them: right padding would leave a prompt's first token at 0.
        padding = 0 if model.template.padding == "right" else (1 - tokens.mask).sum(dim=1, keepdim=True)
        return Prefix(rows[..., :width], tokens.ids, tokens.mask, tokens.indices + padding, cache)

    def _gather(self, items: Int64, positions: Int64) -> Tensor:
        """Rows (n * L, numbers a token) of the prompts' tokens, zeros at padding."""
        own = positions >= self._common
        unkept = self._unkept[items]
        rows = positions - self._common + self._start[items][:, None]
        kept = np.where(own, np.where((unkept < 0)[:, None], rows, 0), (positions + 1).clip(0))
        gathered = self._kept.index_select(0, _tensor(kept.ravel()))
        for number in np.unique(unkept[unkept >= 0]).tolist():
            wanted = own & (unkept == number)[:, None]
            read = self._tails(self._prefix(number))
            gathered[_tensor(np.flatnonzero(wanted))] = read.index_select(0, _tensor(rows[wanted]))
        return gathered

    @torch.no_grad()
    def _prefix(self, block: int) -> Prefix:
        self.reads += len(self._blocks[block])
        tokens = self._model.tokens([self._rows[item] for item in self._blocks[block]])
        return self._model.prefix(tokens, self._shared)

    def _tails(self, prefix: Prefix) -> Tensor:
        """(tokens, numbers a token): the prompts' real tokens, one prompt after the other, but for the shared ones."""
        return _rows(prefix)[prefix.mask.cumsum(1) * prefix.mask > self._common].cpu()


def _mapped(
    folder: Path, about: str, sizes: Sequence[int], part: Callable[[int], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    """A file of `part(0)`, `part(1)`, ... of the given sizes in bytes, mapped into memory.

    about: what the parts depend on. An interrupted run's parts are used again if they depend on the same and neither
    they nor one before them is damaged: a second file holds the sha256 of each.
    """
    file, sums_file = folder / "prompts.bin", folder / "prompts.sums"
    folder.mkdir(parents=True, exist_ok=True)
    title = hashlib.sha256(about.encode()).hexdigest()
    sums = [title]
    if file.exists() and sums_file.exists():
        before = sums_file.read_text(encoding="ascii", errors="replace").splitlines()
        with file.open("rb") as stream:
            for size, line in zip(sizes, before[1:] if before[:1] == [title] else [], strict=False):
                if hashlib.sha256(stream.read(size)).hexdigest() != line:
                    break
                sums.append(line)
    whole = sum(sizes[: len(sums) - 1])
    free, needed = shutil.disk_usage(folder).free, sum(sizes) - (file.stat().st_size if file.exists() else 0)
    if needed > free:
        raise UserError(
            f"reinforce.cache_gb: {needed / 1e9:.1f} GB of prompts are to be written below {folder}, where "
            f"{free / 1e9:.1f} GB are free; lower it, shorten max_length or choose another --store"
        )
    try:
        # Written, not mapped for writing: a full disk is then an error and not a signal that ends the process.
        with file.open("ab") as stream, sums_file.open("w", encoding="ascii") as lines:
            stream.truncate(whole)
            lines.writelines(f"{line}\n" for line in sums)
            for number in range(len(sums) - 1, len(sizes)):
                content = part(number)
                stream.write(content.data)
                stream.flush()
                lines.write(f"{hashlib.sha256(content.data).hexdigest()}\n")
                lines.flush()
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}); lower reinforce.cache_gb or choose another --store"
        ) from None
    # Copy-on-write, because torch wants arrays that can be written; nothing is.
    return np.memmap(file, dtype=np.uint8, mode="c")


def _rows(read: Prefix | SharedPrefix) -> Tensor:
    """(n, L, numbers a token)."""
    parts = [part.transpose(1, 2).flatten(2) for block in read.cache for part in block]
    return torch.cat([read.states, *parts], dim=2)


def _tensor(array: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
