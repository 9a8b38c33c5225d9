"""A step that runs out of memory is refused in one line with a cure, whichever library says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TOYS, Said

Command = Callable[..., Said]

STEP = """
import numpy as np
import torch
from reaemb_bench import Corpus, Step, Vectors


class Greedy(Step):
    how: str = "python"

    def run(self, corpus: Corpus) -> Vectors:
        if self.how == "python":
            raise MemoryError
        if self.how == "numpy":
            return Vectors(np.ones((corpus.items, 1 << 50), dtype=np.float32))
        if self.how == "torch":
            return Vectors(torch.ones(corpus.items, 1 << 50).numpy())
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\\nGPU 0 has 1.00 GiB free.")
"""


@pytest.mark.parametrize("how", ["python", "numpy", "torch", "gpu"])
def test_out_of_memory_is_one_line_with_a_cure(how: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(STEP, encoding="utf-8")
    text = f"""
steps = ["prepare", "embed"]
prepare.use = "{TOYS}:Prepare"
embed = {{ use = "greedy.py:Greedy", how = "{how}" }}
"""
    (tmp_path / "greedy.toml").write_text(text, encoding="utf-8")
    said = command("run", "greedy.toml")
    assert said.code == 2
    assert said.err.startswith("error: step 'embed' ran out of memory") and said.err.count("\n") == 1, said.err
    assert "lower --micro-batch" in said.err
