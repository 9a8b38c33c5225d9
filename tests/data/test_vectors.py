"""`vectors` reads vectors of any embedder from any format, by id, and says in one line what is wrong with a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from reaemb_bench.core.artifacts import Corpus, Sequences, Vectors
from reaemb_bench.core.component import Context
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.data.vectors import ReadVectors
from reaemb_bench.report.vectors import Format, write_vectors
from tests.conftest import Said

Command = Callable[..., Said]

IDS = ("007", "7", "7.50", "b c", "é", 'q"x', "last")
# Eighths are the same in every type of float.
VALUES = np.random.default_rng(1).integers(-8, 9, (len(IDS), 5)).astype(np.float32) / 8


def corpus(ids: tuple[str, ...] = IDS) -> Corpus:
    nothing = Sequences(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64))
    return Corpus("shop", nothing, ids, (), "", ids, ids)


def run(folder: Path, items: tuple[str, ...] = IDS, **setting: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The vectors of the items, and what the step notes."""
    facts: dict[str, Any] = {}
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    step = ReadVectors(**{"path": folder / "emb.csv", **setting})
    vectors = step.run(corpus(items), Context(0, Machine(), lambda progress: None, facts.update, scratch))
    return vectors.values, facts


def _with_ids(write: Callable[[Path, np.ndarray], None], suffix: str) -> Callable[..., dict[str, Path]]:
    def save(folder: Path, ids: list[str], values: np.ndarray) -> dict[str, Path]:
        write(folder / f"emb{suffix}", values)
        (folder / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
        return {"path": folder / f"emb{suffix}"}

    return save


def _table(ids: list[str], values: np.ndarray, wide: bool = False, text: bool = False) -> polars.DataFrame:
    columns: dict[str, Any] = {"item_id": ids}
    if wide:
        columns |= {f"d{number}": column for number, column in enumerate(values.T.tolist())}
    else:
        columns["vector"] = [str(row) if text else row for row in values.tolist()]
    return polars.DataFrame(columns)


def _npz(folder: Path, ids: list[str], values: np.ndarray) -> dict[str, Path]:
    np.savez_compressed(folder / "emb.npz", vectors=values, ids=np.array(ids))
    return {"path": folder / "emb.npz"}


def _ids_in_text(folder: Path, ids: list[str], values: np.ndarray) -> dict[str, Path]:
    np.save(folder / "emb.npy", values.astype(np.float64))
    (folder / "mine.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return {"path": folder / "emb.npy", "ids": folder / "mine.txt"}


def _saved(name: str, write: Callable[[list[str], np.ndarray, Path], object]) -> Callable[..., dict[str, Path]]:
    def save(folder: Path, ids: list[str], values: np.ndarray) -> dict[str, Path]:
        write(ids, values, folder / name)
        return {"path": folder / name}

    return save


def _lines(ids: list[str], values: np.ndarray, file: Path) -> None:
    rows = [json.dumps({"asin": key, "embedding": row}) for key, row in zip(ids, values.tolist(), strict=True)]
    file.write_bytes(gzip.compress("\n\n".join(rows).encode()))


SAVES: dict[str, Callable[[Path, list[str], np.ndarray], dict[str, Path]]] = {
    "npy": _with_ids(np.save, ".npy"),
    "npy, float16, by columns": _with_ids(lambda file, v: np.save(file, np.asfortranarray(v.astype(">f2"))), ".npy"),
    "npy, float64, ids in a text": _ids_in_text,
    "npz": _npz,
    "safetensors": _with_ids(lambda file, v: save_file({"vectors": v}, file), ".safetensors"),
    "safetensors, float64": _with_ids(lambda file, v: save_file({"e": v.astype(np.float64)}, file), ".safetensors"),
    "safetensors, bfloat16": _with_ids(
        lambda file, v: save_torch({"e": torch.from_numpy(v).bfloat16()}, file), ".safetensors"
    ),
    "parquet": _saved("emb.parquet", lambda ids, v, file: _table(ids, v).write_parquet(file)),
    "parquet, arrays, float16": _saved(
        "emb.parquet",
        lambda ids, v, file: polars.DataFrame(
            {"id": ids, "title": ids, "v": polars.Series(v.astype(np.float16), dtype=polars.Array(polars.Float16, 5))}
        ).write_parquet(file),
    ),
    "parquet, a column a number": _saved("emb.pq", lambda ids, v, file: _table(ids, v, wide=True).write_parquet(file)),
    "jsonl, gzip": _saved("emb.jsonl", _lines),
    "csv, lists as text": _saved("emb.csv", lambda ids, v, file: _table(ids, v, text=True).write_csv(file)),
    "csv, a column a number, and row numbers": _saved(
        "emb.csv", lambda ids, v, file: _table(ids, v, wide=True).with_row_index("").write_csv(file)
    ),
    "tsv": _saved("emb.tsv", lambda ids, v, file: _table(ids, v, wide=True).write_csv(file, separator="\t")),
}


@pytest.mark.parametrize("name", SAVES)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(len(IDS))), surplus=st.integers(0, 2))
def test_any_order_of_rows_in_any_format_gives_the_same_vectors(name: str, order: list[int], surplus: int) -> None:
    ids = [*(IDS[row] for row in order), *(f"other{number}" for number in range(surplus))]
    values = np.concatenate([VALUES[order], np.ones((surplus, 5), dtype=np.float32)])
    with TemporaryDirectory() as folder:
        read, facts = run(Path(folder), **SAVES[name](Path(folder), ids, values))
        np.testing.assert_array_equal(read, VALUES)
        assert read.dtype == np.float32
    assert facts == {"vectors_in_file": len(ids), "items_without_vector": 0, "surplus_vectors": surplus}


@pytest.mark.parametrize("form", ["safetensors", "parquet", "npy"])
def test_what_export_writes_goes_back_in(tmp_path: Path, form: Format) -> None:
    drawn = np.random.default_rng(2).normal(size=(len(IDS), 6)).astype(np.float32)
    write_vectors(tmp_path, form, Vectors(drawn), IDS, IDS)
    read, _ = run(tmp_path, tuple(reversed(IDS)), path=tmp_path)
    np.testing.assert_array_equal(read, drawn[::-1])


@pytest.mark.parametrize(("missing", "filling"), [("mean", VALUES[1:].mean(axis=0)), ("zeros", np.zeros(5))])
def test_items_without_a_vector_get_what_the_recipe_says(tmp_path: Path, missing: str, filling: np.ndarray) -> None:
    several = []
    for order in (range(1, len(IDS)), reversed(range(1, len(IDS)))):
        rows = [*order]
        _table([*(IDS[row] for row in rows), "x"], np.vstack([VALUES[rows], 9 * VALUES[:1]])).write_parquet(
            tmp_path / "emb.parquet"
        )
        read, facts = run(tmp_path, path=tmp_path / "emb.parquet", missing=missing)
        np.testing.assert_allclose(read[0], filling, atol=1e-6)
        np.testing.assert_array_equal(read[1:], VALUES[1:])
        several.append(read)
    np.testing.assert_array_equal(*several)
    assert {facts[name] for name in ("items_without_vector", "surplus_vectors")} == {1}
    assert "1 of 7 items, such as '007', have no vector in emb.parquet" in facts["warning: vectors"]


FAULTS = {
    "a,1,2\nb,3\n": r"row 2 (id 'b') holds nothing instead of a number; write numbers",
    "a,1,2\nb,3,x\n": "row 2 (id 'b') holds 'x' instead of a number",
    "a,1,2\nb,3,nan\n": "row 2 (id 'b') holds nan, which is not a finite number of float32; embed that item again",
    "a,1,2\nb,3,1e39\n": "row 2 (id 'b') holds 1e+39, which is not a finite number",
    "a,1,2\nb,3,4\na,1,2\n": "the id 'a' stands twice, in rows 1 and 3; keep one of them",
    "a,1,2\n,3,4\n": "row 2 has no id; give it one",
    "a,1,2,3\n": "cannot be read",
    'a,1,"2\n': "a quote is opened and never closed",
    "": "holds no vectors",
    "x,1,2\n": "none of its ids, such as 'x', is that of an item, such as 'a', 'b'; give the vectors",
    "a,1,2\n": '1 of 2 items, such as \'b\', have no vector; embed them too, or set missing = "mean" or "zeros"',
}


@pytest.mark.parametrize("rows", FAULTS)
def test_a_fault_of_a_row_is_named_in_one_line_with_the_cure(tmp_path: Path, rows: str) -> None:
    (tmp_path / "emb.csv").write_text(f"id,d0,d1\n{rows}", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        run(tmp_path, ("a", "b"))
    assert FAULTS[rows] in str(refused.value)
    assert str(tmp_path / "emb.csv") in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("emb.jsonl", b'{"id": "a", "v": [1, 2]}\n{"id": "b", "v": [1]}\n', "row 2 (id 'b') has 1 numbers, and the"),
        ("emb.jsonl", b'{"id": "a", "v": [1, null]}\n', "row 1 (id 'a') holds nothing instead of a number"),
        ("emb.jsonl", b'{"id": "a", "v": [1, "two"]}\n', "row 1 (id 'a') holds 'two' instead of a number"),
        ("emb.jsonl", b'{"id": "a", "v": [1, NaN]}\n', "row 1 (id 'a') holds nan"),
        ("emb.jsonl", b'{"id": "a", "v": []}\n', "row 1 (id 'a') has 0 numbers"),
        ("emb.jsonl", b'{"id": "a", "v": [[1]]}\n', "row 1 (id 'a') holds '[1]' instead of a number"),
        ("emb.jsonl", b'{"id": "a", "v": [1]}\n{"id"\n', "line 2: no valid JSON"),
        ("emb.jsonl", b'{"id": "a", "v": [1], "w": [2]}\n', "set vector_column"),
        ("emb.jsonl", b'{"key_of_it": "a", "v": [1]}\n', "looks like that of the ids; set id_column"),
        ("emb.parquet", b"PAR1", "cannot be read"),
        ("emb.npz", b"PK", "cannot be read"),
        ("emb.safetensors", b"\x08\0\0\0\0\0\0\0nothing.", "cannot be read"),
        ("emb.pkl", b"", "the suffix '.pkl' is none of .npy, .npz, .safetensors"),
        ("none.csv", None, "there is no file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "ids.json").write_text('["a"]', encoding="utf-8")
    with pytest.raises(UserError) as refused:
        run(tmp_path, ("a", "b"), path=tmp_path / name)
    assert says in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("array", "ids", "says"),
    [
        (np.ones((2, 3)), None, "nothing says whose vectors these are; put ids.json next to it, or set ids"),
        (np.ones((2, 3)), ["a"], "has 1 ids for the 2 vectors of"),
        (np.ones(2), ["a", "b"], "holds float64 of shape (2,)"),
        (np.ones((2, 0)), ["a", "b"], "holds float64 of shape (2, 0)"),
        (np.ones((2, 3), dtype=complex), ["a", "b"], "holds complex128 of shape (2, 3)"),
        (np.array([[{}], [{}]]), ["a", "b"], "cannot be read (Array can't be memory-mapped: Python objects"),
        (np.ones((2, 3)), ["a", None], "row 2 has no id"),
    ],
)
def test_an_array_that_is_no_table_of_vectors_is_refused(tmp_path: Path, array: Any, ids: Any, says: str) -> None:
    np.save(tmp_path / "emb.npy", array)
    if ids is not None:
        (tmp_path / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
    with pytest.raises(UserError) as refused:
        run(tmp_path, ("a", "b"), path=tmp_path / "emb.npy")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "column",
    [
        [{"a": 1.0}],
        [[[1.0, 2.0]]],
        [b"12"],
        [[b"1"]],
        [date(2020, 1, 1)],
        [[True]],
        polars.Series(["1 2"], dtype=polars.Categorical),
    ],
)
def test_a_column_of_something_other_than_numbers_is_refused(tmp_path: Path, column: Any) -> None:
    polars.DataFrame({"id": ["a"], "vector": column}).write_parquet(tmp_path / "emb.parquet")
    with pytest.raises(UserError, match=r"the column 'vector' holds .*, not numbers; set vector_column"):
        run(tmp_path, ("a",), path=tmp_path / "emb.parquet")
    polars.DataFrame({"id": [["a"]], "vector": [[1.0]]}).write_parquet(tmp_path / "emb.parquet")
    with pytest.raises(UserError, match="holds lists; name one of single values"):
        run(tmp_path, ("a",), path=tmp_path / "emb.parquet")


def test_what_could_be_meant_twice_is_named_by_the_recipe(tmp_path: Path) -> None:
    save_file({"one": VALUES, "two": VALUES + 1}, tmp_path / "emb.safetensors")
    for name in ("ids.json", "ids.txt"):
        (tmp_path / name).write_text(json.dumps(IDS), encoding="utf-8")
    with pytest.raises(UserError, match=r"holds ids.json, ids.txt; name one file in the setting ids"):
        run(tmp_path, path=tmp_path / "emb.safetensors")
    ids = tmp_path / "ids.json"
    with pytest.raises(UserError, match="holds one, two; name the vectors in vector_column"):
        run(tmp_path, path=tmp_path / "emb.safetensors", ids=ids)
    read, _ = run(tmp_path, path=tmp_path / "emb.safetensors", ids=ids, vector_column="two")
    np.testing.assert_array_equal(read, VALUES + 1)
    polars.DataFrame({"mine": IDS, "v": VALUES.tolist(), "w": (VALUES + 1).tolist()}).write_parquet(tmp_path / "e.pq")
    read, _ = run(tmp_path, path=tmp_path / "e.pq", id_column="mine", vector_column="w")
    np.testing.assert_array_equal(read, VALUES + 1)
    with pytest.raises(UserError, match="has no column 'mne'"):
        run(tmp_path, path=tmp_path / "e.pq", id_column="mne", vector_column="w")


def test_one_changed_byte_of_vectors_or_ids_changes_the_key_and_another_folder_does_not(tmp_path: Path) -> None:
    identities = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        step = ReadVectors(**SAVES["npy"](tmp_path / folder, list(IDS), VALUES))
        identities.append(step.identity())
    assert identities[0] == identities[1]
    for file in (tmp_path / "two/emb.npy", tmp_path / "two/ids.json"):
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
        identities.append(step.identity())
        assert identities[-1] not in identities[:-1]


def test_a_quoted_line_break_between_blocks_stays_in_its_row(tmp_path: Path) -> None:
    ids = tuple(f"i{number}" for number in range(60))
    table = {"id": ids, "title": ["a\nb " * 50_000 for _ in ids], "vector": ["[1, 2]" for _ in ids]}
    polars.DataFrame(table).write_csv(tmp_path / "emb.csv")
    read, _ = run(tmp_path, ids)
    np.testing.assert_array_equal(read, np.tile([1.0, 2.0], (60, 1)))


# The command line.


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with interactions alone, and vectors of all but one of the items and of one more."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = [(f"u{user}", f"i{(user * 3 + step) % 12}", step) for user in range(30) for step in range(5)]
    polars.DataFrame(rows, schema=["user", "sku", "time"], orient="row").write_csv(folder / "orders.csv")
    ids = [f"i{number}" for number in [*range(11), 99]]
    _table(ids, np.random.default_rng(3).normal(size=(12, 6))).write_parquet(folder / "emb.parquet")
    return folder


FAST = ("--set", "train.epochs=1", "--set", "train.head.hidden=8")


@pytest.mark.slow
def test_vectors_are_judged_without_a_recipe(command: Command, shop: Path) -> None:
    words = ("run", "--vectors", "shop/emb.parquet", "--data", "shop", *FAST)
    refused = command(*words)
    assert refused.code == 2
    assert "1 of 12 items, such as 'i11', have no vector; embed them too" in refused.err
    said = command(*words, "--set", "vectors.missing=mean")
    assert said.code == 0, said.err
    assert "emb on shop" in said.out
    assert "item-knn" in said.out
    assert "Alignment of the vectors" in said.out
    assert "1 of 12 items, such as 'i11', have no vector" in " ".join(said.out.split())
    again = command(*words, "--set", "vectors.missing=mean")
    assert "0 of 7 steps to compute" in again.out
    frame = polars.read_parquet(shop / "emb.parquet")
    frame.reverse().write_parquet(shop / "emb.parquet")
    changed = command(*words, "--set", "vectors.missing=mean")
    assert "5 of 7 steps to compute" in changed.out
    refused = command("run", "--vectors", "shop/orders.csv", "--data", "shop")
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1
    assert command("report", "emb (train.epochs=1, train.head.hidden=8, vectors.missing=mean)").code == 0


def test_items_may_be_described_and_columns_named(command: Command, shop: Path) -> None:
    items = polars.DataFrame({"sku": [f"i{number}" for number in range(12)], "title": [f"T{n}" for n in range(12)]})
    items.write_csv(shop / "things.csv")
    orders = polars.read_csv(shop / "orders.csv").rename({"user": "household"})
    orders.write_csv(shop / "orders.csv")
    words = ("run", "--vectors", shop / "emb.parquet", "--data", shop, *FAST, "--set", "vectors.missing=zeros")
    refused = command(*words)
    assert refused.code == 2
    said = command(*words, "--column", "user=household")
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    "words",
    [("--vectors", "e.npy"), ("--data", "my"), ("quickstart", "--vectors", "e.npy", "--data", "my")],
)
def test_vectors_and_data_go_together_and_without_a_recipe(command: Command, words: tuple[str, ...]) -> None:
    said = command("run", *words)
    assert said.code == 2
    assert "--vectors, --data and --column go together and without a recipe" in said.err


def test_data_check_counts_the_items_that_have_a_vector(command: Command, shop: Path) -> None:
    said = command("data", "check", shop, "--vectors", shop / "emb.parquet")
    assert said.code == 0, said.err
    findings = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "! ids items without a vector; the setting `missing` says what they get 1 8.3% i11" in findings, said.out
    assert "ids vectors of no item, which are left out 1 8.3% i99" in findings
    assert "size numbers of each vector 6" in findings
    recipe = shop.parent / "mine.toml"
    recipe.write_text(
        'extends = "recipes/vectors.toml"\nvectors.path = "shop/emb.parquet"\n[prepare.source]\n'
        'interactions = "shop/orders.csv"\nitems = "shop/orders.csv"\nuser = "user"\nitem = "sku"\nitem_key = "sku"\n'
        'timestamp = "time"\ntitle = "sku"\n',
        encoding="utf-8",
    )
    said = command("data", "check", recipe)
    assert said.code == 0, said.err
    assert any("items without a vector" in line for line in said.out.splitlines())
