"""What is kept of the prompts: what it costs, and that only what is whole is used again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.shared_prefix import Prefix
from reaemb_bench.encoder.thought_model import ThoughtModel
from reaemb_bench.rl.prompt_cache import Prompts
from tests.helpers.encoders import corpus, encoder

ITEMS = 20
WIDTH, BLOCKS, KEY_VALUE_HEADS, HEAD = 64, 2, 2, 16
NUMBERS = WIDTH + 2 * BLOCKS * KEY_VALUE_HEADS * HEAD


class Read(NamedTuple):
    """A model and the token ids of its prompts."""

    model: ThoughtModel
    rows: list[list[int]]

    @property
    def tails(self) -> list[int]:
        """Tokens of each prompt after those that all begin with."""
        common = next(place for place, tokens in enumerate(zip(*self.rows, strict=False)) if len(set(tokens)) > 1)
        return [len(row) - common for row in self.rows]

    def prompts(self, folder: Path, limit: float = 1e9, items: range = range(ITEMS)) -> Prompts:
        return Prompts(self.model, self.rows, np.array(items), folder, limit)


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


def test_an_item_costs_its_own_tokens_and_the_template_is_kept_once(read: Read, tmp_path: Path) -> None:
    prompts = read.prompts(tmp_path)
    common = len(read.rows[0]) - read.tails[0]
    assert common > 30
    # One row of zeros stands at padding.
    assert prompts.size == (1 + common + sum(read.tails)) * NUMBERS * 4
    assert (tmp_path / "prompts.bin").stat().st_size == prompts.size
    assert prompts.without_room == 0


def test_half_precision_is_kept_in_half_the_room(tmp_path: Path) -> None:
    halves = open_encoder(encoder(tmp_path / "llm"), Machine(device="cpu", precision="bfloat16"))
    read = Read(halves, halves.tokenize(corpus(ITEMS).texts))
    kept, unkept = read.prompts(tmp_path / "kept"), read.prompts(tmp_path / "unkept", 0)
    assert kept.size == (1 + len(read.rows[0]) - read.tails[0] + sum(read.tails)) * NUMBERS * 2
    chosen = np.array([4, 19, 4])
    assert kept(chosen).states.dtype == torch.bfloat16
    assert equal(kept(chosen), unkept(chosen))


def test_only_items_that_will_be_asked_for_are_read(read: Read, tmp_path: Path) -> None:
    assert read.prompts(tmp_path, items=range(3, 8)).reads == 5


def test_numbers_do_not_depend_on_the_limit_or_the_order(read: Read, tmp_path: Path) -> None:
    whole = read.prompts(tmp_path / "all").size
    limits = {"all": 1e9, "some": whole / 2, "none": 0.0}
    kept = {name: read.prompts(tmp_path / name, limit) for name, limit in limits.items()}
    assert 0 < kept["some"].size <= whole / 2
    assert 0 < kept["some"].without_room < ITEMS == kept["none"].without_room
    assert not (tmp_path / "none").exists()
    for chosen in ([7], [3, 19, 0, 3], list(range(ITEMS))[::-1]):
        asked = [prompts(np.array(chosen)) for prompts in kept.values()]
        assert all(equal(asked[0], other) for other in asked[1:])


def test_prompts_of_an_interrupted_run_are_not_read_again(read: Read, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Prompts(read.model, read.rows, np.arange(ITEMS), tmp_path, 1e9, report=stop)
    again = read.prompts(tmp_path)
    # The block in which it was interrupted, the last one, and the first, which says how large everything is.
    assert again.reads == 8 + 8 + 4
    assert read.prompts(tmp_path).reads == 8
    assert equal(read.prompts(tmp_path / "other")(np.arange(ITEMS)), again(np.arange(ITEMS)))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("name", ["prompts.bin", "prompts.sums"])
@pytest.mark.parametrize("harm", [cut, flip_a_bit, empty, Path.unlink])
def test_what_is_damaged_is_read_again(harm: Callable[[Path], None], name: str, read: Read, tmp_path: Path) -> None:
    first = read.prompts(tmp_path)(np.arange(ITEMS))
    content = (tmp_path / "prompts.bin").read_bytes()
    harm(tmp_path / name)
    again = read.prompts(tmp_path)
    assert again.reads > 8
    assert equal(first, again(np.arange(ITEMS)))
    assert (tmp_path / "prompts.bin").read_bytes() == content


def test_other_texts_do_not_use_the_file(read: Read, tmp_path: Path) -> None:
    read.prompts(tmp_path / "kept")
    other = Read(read.model, read.rows[::-1])
    expected = other.prompts(tmp_path / "fresh")
    assert equal(other.prompts(tmp_path / "kept")(np.arange(ITEMS)), expected(np.arange(ITEMS)))


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"cache_gb: .* GB are free; lower it") as refused:
        read.prompts(tmp_path / "prompts")
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "prompts").iterdir())
    assert read.prompts(tmp_path / "prompts", 0).size == 0
