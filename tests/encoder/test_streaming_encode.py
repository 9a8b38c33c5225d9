"""Vectors of many items: written file by file, resumed after the last whole file, read without being held."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from reaemb_bench.core import artifacts
from reaemb_bench.core.artifacts import Vectors, shard_facts, write_shard
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.encoder import embed as export
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.reducers import PCA, Whitening
from reaemb_bench.encoder.thought_model import ThoughtModel
from tests.helpers.encoders import context, corpus, encoder

ROOT = Path(__file__).parents[2]
CPU = Machine(device="cpu")
ITEMS = 50


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 16 rows, of which 5 are tokenised at once."""
    monkeypatch.setattr(export, "SHARD", 16)
    monkeypatch.setattr(export, "_CHUNK", 5)
    monkeypatch.setattr(artifacts, "SHARD", 16)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return encoder(tmp_path_factory.mktemp("llm"))


def encode(made, folder: Path, **given):
    return build("step", "encode").run(corpus(ITEMS), made, context(folder, **given))


def test_files_hold_the_vectors_of_all_items_in_order(made, tmp_path, small_files, monkeypatch):
    monkeypatch.setattr(export, "SHARD", 1000)
    monkeypatch.setattr(export, "_CHUNK", 1000)
    facts: dict[str, object] = {}
    whole = encode(made, tmp_path / "whole", facts=facts).values
    monkeypatch.setattr(export, "SHARD", 16)
    monkeypatch.setattr(export, "_CHUNK", 5)
    ticks, again = [], {}
    streamed = encode(made, tmp_path / "streamed", ticks=ticks, facts=again)
    streamed.save(folder := empty(tmp_path / "saved"))
    names = [f"vectors-{place:05}-of-00004.safetensors" for place in range(4)]
    assert [file.name for file in sorted(folder.iterdir())] == names
    assert [len(block) for block in Vectors.load(folder).blocks()] == [16, 16, 16, 2]
    for read in (streamed, Vectors.load(folder)):
        assert (read.items, read.width) == (ITEMS, 64)
        np.testing.assert_allclose(read.values, whole, atol=1e-5)
    assert again == facts
    assert [tick.done for tick in ticks][-1] == ITEMS and {tick.total for tick in ticks} == {ITEMS}
    assert sorted(tick.done for tick in ticks) == [tick.done for tick in ticks]


def test_no_more_than_a_chunk_of_texts_is_tokenised_at_once(made, tmp_path, small_files, monkeypatch):
    sizes, plain = [], ThoughtModel.tokenize

    def watched(self, texts, max_length=None):
        sizes.append(len(texts))
        return plain(self, texts, max_length)

    monkeypatch.setattr(ThoughtModel, "tokenize", watched)
    encode(made, tmp_path)
    assert sum(sizes) == ITEMS and max(sizes) == 5


@pytest.mark.parametrize("done", [3, 16, 40])
def test_an_interrupted_encoding_goes_on_behind_its_last_whole_file(made, tmp_path, small_files, done):
    whole = encode(made, tmp_path / "whole").values

    class Stop(list):
        def append(self, tick):
            if tick.done >= done:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(made, tmp_path / "broken", ticks=Stop())
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "broken").glob("vectors*")}
    assert len(kept) == (done - 1) // 16
    ticks, facts = [], {}
    resumed = encode(made, tmp_path / "broken", ticks=ticks, facts=facts)
    assert len(kept) * 16 < ticks[0].done <= len(kept) * 16 + 5
    assert np.array_equal(resumed.values, whole)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert facts["tokens"] == sum(int(shard_facts(file)["tokens"]) for file in (tmp_path / "broken").glob("vectors*"))


def test_a_vector_that_is_not_finite_is_named_by_its_item(made, tmp_path, small_files, monkeypatch):
    plain = ThoughtModel.embed

    def broken(self, tokens, *more, **given):
        vectors = plain(self, tokens, *more, **given).clone()
        counted.extend(range(len(vectors)))
        if len(counted) > 16:
            vectors[:] = float("nan")
        return vectors

    counted: list[int] = []
    monkeypatch.setattr(ThoughtModel, "embed", broken)
    with pytest.raises(UserError, match=r"not finite \(items 16, 17, 18 and \d+ more\)"):
        encode(made, tmp_path)


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def files(folder: Path, values: np.ndarray, sizes: list[int]) -> list[Path]:
    made = [folder / f"{place}.safetensors" for place in range(len(sizes))]
    for file, rows in zip(made, np.split(values, np.cumsum(sizes)[:-1]), strict=True):
        write_shard(file, rows)
    return made


@pytest.mark.parametrize("reducer", [PCA(dimensions=5), Whitening(dimensions=5)], ids=["pca", "whitening"])
def test_reducing_files_block_by_block_gives_what_reducing_an_array_gives(tmp_path, reducer):
    generator = np.random.default_rng(3)
    # Far from the origin, where sums of squares lose their digits.
    values = (generator.normal(size=(9000, 8)) @ generator.normal(size=(8, 8)) + 1000).astype(np.float32)
    read = Vectors(*files(tmp_path, values, [4096, 100, 4804]))
    assert len(list(read.blocks())) == 4
    reduced = reducer.reduce(read)
    centred = values.astype(np.float64) - values.astype(np.float64).mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:5]
    expected = centred @ (axes * np.sign(axes[range(5), np.abs(axes).argmax(axis=1)])[:, None]).T
    if isinstance(reducer, Whitening):
        expected /= expected.std(axis=0, ddof=1)
    assert (reduced.items, reduced.width) == (9000, 5)
    np.testing.assert_allclose(reduced.values, expected, atol=1e-4)
    reduced.save(folder := empty(tmp_path / "saved"))
    assert np.array_equal(Vectors.load(folder).values, reduced.values)


def test_a_reduction_of_a_reduction_is_both(tmp_path):
    values = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    twice = PCA(dimensions=2).reduce(PCA(dimensions=4).reduce(Vectors(*files(tmp_path, values, [30, 10]))))
    np.testing.assert_allclose(twice.values, PCA(dimensions=2).reduce(Vectors(values)).values, atol=1e-5)


def test_vectors_of_one_file_are_mapped_and_a_change_of_them_does_not_reach_the_file(tmp_path):
    values = np.ones((3, 2), dtype=np.float32)
    Vectors(values).save(tmp_path)
    read = Vectors.load(tmp_path).values
    read[0] = 7
    assert np.array_equal(Vectors.load(tmp_path).values, values)


def peak_of(work) -> int:
    """Most bytes that Python and NumPy held at once for `work`."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_neither_token_ids_nor_vectors_are_held(made, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "SHARD", 200)
    monkeypatch.setattr(export, "_CHUNK", 50)
    few, many = corpus(200), corpus(1000)
    step = build("step", "encode")
    step.run(few, made, context(tmp_path / "warm"))
    rows = ThoughtModel.tokenize(open_encoder(made, CPU), many.texts)
    ids = sum(sys.getsizeof(row) for row in rows)
    first = peak_of(lambda: step.run(few, made, context(tmp_path / "few")))
    grown = peak_of(lambda: step.run(many, made, context(tmp_path / "many"))) - first
    assert grown < 0.2 * (ids + 800 * 64 * 4)


def test_pca_holds_neither_its_input_nor_its_output(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "SHARD", 2000)
    values = np.random.default_rng(2).normal(size=(40_000, 32)).astype(np.float32)
    read = Vectors(*files(tmp_path, values, [2000] * 20))
    size, folder = values.nbytes, empty(tmp_path / "saved")
    assert peak_of(lambda: PCA(dimensions=32).reduce(read).save(folder)) < 0.6 * size
    assert len(list(folder.iterdir())) == 20


@pytest.mark.slow
def test_many_items_are_encoded_under_a_limit_of_memory():
    words = ["--items", "2000", "--limit-mib", "300"]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.encoder.stream", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["items"] == 2000 and told["width"] == 64 and told["tokens"] > 2000
