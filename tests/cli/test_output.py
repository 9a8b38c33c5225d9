"""Output to a terminal or file that does not take every character."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_that_cannot_show_a_character_shows_another(encoding: str, toy_recipe: Path) -> None:
    text = toy_recipe.read_text(encoding="utf-8").replace('"Toys"', '"Töys ✓ \u65e5"')
    toy_recipe.write_text(text + "", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "REAEMB_BENCH_MLFLOW": ""}
    words = [sys.executable, "-m", "reaemb_bench", "run", toy_recipe, "--set", "seeds=[1, 2]"]
    said = subprocess.run(words, cwd=toy_recipe.parent, env=environment, capture_output=True, check=False)
    assert said.returncode == 0, said.stderr
    shown = said.stdout.decode(encoding)
    assert "computed 7 steps" in shown
    assert ("Töys ✓ \u65e5" in shown) == (encoding == "utf-8")
