"""Vectors are judged from Python as they are on the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest

from reaemb_bench import Machine, UserError, evaluate
from tests.conftest import Said

SETS = ["train.epochs=2"]
PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.fixture
def frame() -> polars.DataFrame:
    """80 users who buy 8 of 60 items each."""
    draw = np.random.default_rng(0)
    rows = [
        (f"u{user}", int(item), time) for user in range(80) for time, item in enumerate(draw.permutation(60)[:8], 1)
    ]
    return polars.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(60, 16)).astype(np.float32)


def test_an_array_and_its_file_give_the_same_ranks(
    command: Callable[..., Said], tmp_path: Path, frame: polars.DataFrame, vectors: np.ndarray
) -> None:
    machine = Machine(store=tmp_path / "store", mlflow="")
    # In another order, as another type and from another kind of frame: vectors belong to ids.
    order = np.random.default_rng(2).permutation(60)
    columns = {name: frame[name].to_list() for name in frame.columns}
    result = evaluate(vectors[order].astype(np.float64), order, columns, name="mine", sets=SETS, machine=machine)
    (tmp_path / "shop").mkdir()
    frame.write_csv(tmp_path / "shop" / "interactions.csv")
    np.savez(tmp_path / "emb.npz", vectors=vectors, ids=np.arange(60))
    said = command("run", "--vectors", tmp_path / "emb.npz", "--data", tmp_path / "shop", "--set", SETS[0])
    assert said.code == 0, said.err
    row, *_ = (line.split() for line in said.out.splitlines() if line.startswith("emb (train.epochs=2)  "))
    assert f"{result.metrics['full/ndcg@10']:.4f}"[1:] == row[3]
    assert len(result.ranks[0].users) == 80
    assert "item-knn" in str(result) and "Alignment of the vectors" in str(result)
    html = result._repr_html_()
    assert html.count("<table>") == len(result.tables) and "<html" not in html
    # The store knows both, and computes neither again.
    assert result.run in command("history", "--store", tmp_path / "store").out
    again = evaluate(vectors, range(60), frame, name="mine", sets=SETS, machine=machine)
    assert again.metrics == result.metrics


def test_mistakes_are_one_line(tmp_path: Path, frame: polars.DataFrame, vectors: np.ndarray) -> None:
    machine = Machine(store=tmp_path / "store", mlflow="")
    mistakes = {
        "59 ids for 60 vectors": (vectors, range(59), frame),
        "vectors are of shape": (vectors[0], range(60), frame),
        "none of its ids, such as 'x0'": (vectors, [f"x{item}" for item in range(60)], frame),
        "not a finite number": (np.where(vectors > 2, np.nan, vectors), range(60), frame),
        "holds no interactions": (vectors, range(60), frame.select("item")),
    }
    for message, given in mistakes.items():
        with pytest.raises(UserError, match=message) as refused:
            evaluate(*given, sets=SETS, machine=machine)
        assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_the_page_about_python_runs(tmp_path: Path, frame: polars.DataFrame, vectors: np.ndarray) -> None:
    frame.write_csv(tmp_path / "interactions.csv")
    np.save(tmp_path / "vectors.npy", vectors)
    (tmp_path / "ids.json").write_text(json.dumps(list(range(60))), encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("my embedder")
