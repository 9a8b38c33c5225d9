"""What is kept of the prompts: what it costs, where it lies, and that only whole files are used again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.shared_prefix import Prefix
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.prompt_cache import CacheBudget, Prompts, lay_out, read_sealed, write_sealed
from tests.encoding_helpers import corpus, encoder

ITEMS = 20
WIDTH, BLOCKS, KEY_VALUE_HEADS, HEAD = 64, 2, 2, 16
NUMBERS = WIDTH + 2 * BLOCKS * KEY_VALUE_HEADS * HEAD


class Read(NamedTuple):
    """A model and the token ids of its prompts."""

    model: ThoughtModel
    rows: list[list[int]]

    @property
    def tails(self) -> list[int]:
        """Tokens of each prompt behind those that all begin with."""
        common = next(place for place, tokens in enumerate(zip(*self.rows, strict=False)) if len(set(tokens)) > 1)
        return [len(row) - common for row in self.rows]

    def prompts(self, room: CacheBudget, items: range = range(ITEMS)) -> Prompts:
        return Prompts(self.model, self.rows, np.array(items), room)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    model = open_encoder(encoder(tmp_path_factory.mktemp("llm")), Machine(device="cpu"))
    return Read(model, model.tokenize(corpus(ITEMS).texts))


def equal(one: Prefix, other: Prefix) -> bool:
    tensors = [
        (each.states, each.ids, each.mask, each.positions, *(part for block in each.cache for part in block))
        for each in (one, other)
    ]
    return all(torch.equal(first, second) for first, second in zip(*tensors, strict=True))


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(-5, 400), st.integers(0, 400), st.integers(1, 60)
)
def test_every_block_has_one_place_and_no_place_overflows(sizes: list[int], memory: int, disk: int, shard: int) -> None:
    made = lay_out(sizes, memory, disk, shard)
    on_disk = [block for blocks in made.shards for block in blocks]
    assert sorted([*made.memory, *on_disk, *made.nowhere]) == list(range(len(sizes)))
    assert sum(sizes[block] for block in made.memory) <= max(memory, 0)
    assert sum(sizes[block] for block in on_disk) <= disk
    assert all(len(blocks) == 1 or sum(sizes[block] for block in blocks) <= shard for blocks in made.shards)
    assert all(made.shards)
    if sum(sizes) <= memory:
        assert made.memory == list(range(len(sizes)))
    elif sum(sizes) <= disk:
        assert not made.nowhere


def test_an_item_costs_its_own_tokens_and_the_template_is_kept_once(read: Read, tmp_path: Path) -> None:
    prompts = read.prompts(CacheBudget(1e9, 0, tmp_path))
    common = len(read.rows[0]) - read.tails[0]
    assert common > 30
    # One row of zeros stands at padding.
    assert prompts.size == (1 + common + sum(read.tails)) * NUMBERS * 4
    assert prompts.disk_size == 0
    spilled = read.prompts(CacheBudget(0, 1e9, tmp_path))
    assert spilled.disk_size == sum(read.tails) * NUMBERS * 4
    assert spilled.disk_size < sum(file.stat().st_size for file in tmp_path.iterdir()) < spilled.disk_size + 1000


def test_half_precision_is_kept_in_half_the_room(tmp_path: Path) -> None:
    made = encoder(tmp_path / "llm")
    halves = open_encoder(made, Machine(device="cpu", precision="bfloat16"))
    rows = halves.tokenize(corpus(ITEMS).texts)
    memory = Prompts(halves, rows, np.arange(ITEMS), CacheBudget(1e9, 0, tmp_path / "memory"))
    disk = Prompts(halves, rows, np.arange(ITEMS), CacheBudget(0, 1e9, tmp_path / "disk"))
    assert disk.disk_size == sum(Read(halves, rows).tails) * NUMBERS * 2
    chosen = np.array([4, 19, 4])
    assert memory(chosen).states.dtype == torch.bfloat16
    assert equal(memory(chosen), disk(chosen))


def test_only_items_that_will_be_asked_for_are_read(read: Read, tmp_path: Path) -> None:
    assert read.prompts(CacheBudget(1e9, 0, tmp_path), range(3, 8)).reads == 5


def test_numbers_do_not_depend_on_place_or_order(read: Read, tmp_path: Path) -> None:
    whole = sum(read.tails) * NUMBERS * 4
    rooms = {"memory": (1e9, 0.0), "disk": (0.0, 1e9), "some": (whole / 2, whole / 2), "none": (0.0, 0.0)}
    kept = {name: read.prompts(CacheBudget(*room, tmp_path / name, 1)) for name, room in rooms.items()}
    assert kept["some"].without_room and kept["some"].disk_size
    for chosen in ([7], [3, 19, 0, 3], list(range(ITEMS))[::-1]):
        asked = [prompts(np.array(chosen)) for prompts in kept.values()]
        assert all(equal(asked[0], other) for other in asked[1:])


def test_files_of_an_interrupted_run_are_not_read_again(read: Read, tmp_path: Path) -> None:
    room = CacheBudget(0, 1e9, tmp_path, shard=1)
    first = read.prompts(room)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    files[1].unlink()
    (tmp_path / ".prompts-00001.safetensors.x1y2").write_bytes(b"half of it")
    again = read.prompts(room)
    assert sorted(tmp_path.iterdir()) == files
    # The block that was lost, and the first, which says how large everything is.
    assert again.reads == 16
    assert equal(first(np.arange(ITEMS)), again(np.arange(ITEMS)))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def exchange(file: Path) -> None:
    write_sealed(file, {"rows": torch.zeros(3, NUMBERS)}, "other prompts")


def fill_with_text(file: Path) -> None:
    file.write_text("no safetensors")


@pytest.mark.parametrize("harm", [cut, flip_a_bit, exchange, fill_with_text])
def test_a_file_that_is_not_whole_or_holds_other_prompts_is_made_again(
    harm: Callable[[Path], None], read: Read, tmp_path: Path
) -> None:
    room = CacheBudget(0, 1e9, tmp_path, shard=1)
    first = read.prompts(room)(np.arange(ITEMS))
    file = min(tmp_path.iterdir())
    content = load_file(file)["rows"].clone()
    harm(file)
    assert equal(first, read.prompts(room)(np.arange(ITEMS)))
    assert torch.equal(load_file(file)["rows"], content)


def test_other_texts_do_not_use_the_files(read: Read, tmp_path: Path) -> None:
    room = CacheBudget(0, 1e9, tmp_path)
    read.prompts(room)
    other = Read(read.model, read.rows[::-1])
    expected = other.prompts(CacheBudget(1e9, 0, tmp_path / "memory"))
    assert equal(other.prompts(room)(np.arange(ITEMS)), expected(np.arange(ITEMS)))


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"cache_disk_gb: .* GB are free; lower it") as refused:
        read.prompts(CacheBudget(0, 1e9, tmp_path / "prompts"))
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "prompts").iterdir())
    assert read.prompts(CacheBudget(1e9, 1e9, tmp_path / "prompts")).disk_size == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_sealed_tensors_come_back_as_they_were(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).view(2, 3).to(dtype), "step": torch.tensor(3).to(dtype)}
    write_sealed(tmp_path / "x.safetensors", tensors, "these")
    found = read_sealed(tmp_path / "x.safetensors", "these")
    assert found is not None
    assert all(torch.equal(found[name], tensor) and found[name].dtype == dtype for name, tensor in tensors.items())
    assert read_sealed(tmp_path / "x.safetensors", "those") is None
    assert read_sealed(tmp_path / "absent.safetensors", "these") is None
