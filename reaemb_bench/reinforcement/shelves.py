"""Where what was read of the prompts is kept: rows of numbers in main memory, then in files, then nowhere."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reaemb_bench.errors import UserError
from reaemb_bench.reinforcement.sealed import read_sealed, write_sealed


@dataclass(frozen=True)
class Room:
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
