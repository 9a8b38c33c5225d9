"""What a plug-in returns is an array of the right type and shape, or is refused in one line that names the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reaemb_bench.core.artifacts import Sequences, TestTargets, Vectors
from reaemb_bench.core.errors import ArrayError, UserError
from reaemb_bench.core.execute import execute, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import from_raw
from reaemb_bench.core.store import Store

PLUGIN = """
import numpy as np
import torch
from reaemb_bench import Corpus, Sequences, Step, Vectors

class Data(Step):
    '''Three items.'''
    def run(self) -> Corpus:
        sequences = Sequences(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64))
        return Corpus("x", sequences, ("a", "b", "c"), (), "", ("",) * 3, ("",) * 3)

class Embed(Step):
    '''Vectors of them.'''
    def run(self, corpus: Corpus) -> Vectors:
        return RETURNED
"""


def run(folder: Path, returned: str) -> Vectors | None:
    (folder / "mine.py").write_text(PLUGIN.replace("RETURNED", returned), encoding="utf-8")
    tables = {"data": {"use": f"{folder}/mine.py:Data"}, "embed": {"use": f"{folder}/mine.py:Embed"}}
    planned = plan(from_raw({"steps": ["data", "embed"], **tables}, "arrays"), 1)
    execute(planned, Store(folder / "store"), Machine(device="cpu"), lambda event: None)
    return fetch(planned, Store(folder / "store"), Vectors)


@pytest.mark.parametrize(
    "returned",
    [
        "Vectors(np.arange(6.0).reshape(3, 2))",
        "Vectors([[0, 1], [2, 3], [4, 5]])",
        "Vectors(torch.arange(6.0, requires_grad=True).reshape(3, 2))",
        "Vectors(torch.arange(6).reshape(3, 2).bfloat16())",
        "Vectors(np.arange(6, dtype=np.int64).reshape(3, 2))",
    ],
)
def test_numbers_of_another_type_are_converted(tmp_path: Path, returned: str) -> None:
    vectors = run(tmp_path, returned)
    assert vectors is not None
    assert vectors.values.dtype == np.float32
    assert vectors.values.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("Vectors(np.zeros(3))", r"step 'embed': vectors are of shape \(3,\); return an array of 2 dimensions"),
        ("Vectors(np.zeros((3, 2, 1)))", r"step 'embed': vectors are of shape \(3, 2, 1\)"),
        ("Vectors([[1, 2], [3]])", "step 'embed': vectors are not an array of numbers"),
        ("Vectors([['a'], ['b'], ['c']])", "step 'embed': vectors are not an array of numbers"),
        ("Vectors(np.ones((3, 2)) + 1j)", r"vectors are not an array of numbers \(they are of type complex128\)"),
        ("Vectors([['1'], ['2'], ['3']])", r"vectors are not an array of numbers \(they are of type <U1\)"),
        ("Vectors(np.ma.masked_less(np.eye(3), 1))", r"vectors are not an array of numbers \(some are masked\)"),
        ("Vectors(np.zeros((2, 2)))", "step 'embed': it returned 2 vectors for 3 items; return one for each"),
        ("Vectors(np.zeros((3, 0)))", "step 'embed': it returned vectors without a number, of width 0"),
        ("Vectors(np.array([[1], [1e300], [0]]))", r"a vector is not finite in embed \(item b\)"),
        ("np.zeros((3, 2))", r"step 'embed' returned \['ndarray'\] but declares \['Vectors'\]"),
    ],
)
def test_what_is_not_such_an_array_is_refused_in_one_line(tmp_path: Path, returned: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        run(tmp_path, returned)
    assert "\n" not in str(refused.value)


def test_numbers_of_items_stay_the_same_or_are_refused() -> None:
    sequences = Sequences([1, 2, 3], torch.tensor([0, 3]))  # type: ignore[arg-type]
    assert (sequences.items.dtype, sequences.offsets.dtype) == (np.int32, np.int64)
    for bad in ([0.5], [2.0**40], [[1]], [None]):
        with pytest.raises(ArrayError, match="items of Sequences are"):
            Sequences(bad, np.array([0, 1]))  # type: ignore[arg-type]
    targets: dict[str, Any] = {"users": [0], "targets": [1], "histories": sequences}
    with pytest.raises(ArrayError, match="candidates of TestTargets are of shape"):
        TestTargets(**targets, candidates=[1, 2])
