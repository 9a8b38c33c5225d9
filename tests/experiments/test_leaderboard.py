"""A leaderboard orders the embedders of a suite, says which are not told apart, what they cost and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reaemb_bench.evaluation.significance import MethodValues
from reaemb_bench.experiments.leaderboard import _groups
from tests.conftest import Said

pytestmark = pytest.mark.slow

SUITE = """
title = "Embedders of a shop"
seeds = [1, 2]
methods = [{ recipe = "random.toml", name = "random <b>" }, { recipe = "counts.toml", name = "counts" }]
[data]
large = { source = { use = "simulated", users = 60, items = 40 }, sampled_candidates = 10 }
small = { source = { use = "simulated", users = 40, items = 30 }, sampled_candidates = 10 }
"""
RECIPE = """
steps = ["prepare", "embed", "alignment", "reduce", "train", "rank"]
[prepare]
source = "simulated"
[embed]
use = "{use}"
dimensions = 12
[alignment]
use = "measure-alignment"
[reduce]
reducer = {{ use = "pca", dimensions = 8 }}
[train]
items = "frozen"
head = {{ use = "sasrec", hidden = 8, max_length = 10 }}
epochs = 1
"""
BASELINES = Path(__file__).parents[2] / "baselines"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for name, use in (
        ("random", "random_table/component.py:RandomVectors"),
        ("counts", "tfidf_svd/component.py:TfidfSvd"),
    ):
        (tmp_path / f"{name}.toml").write_text(RECIPE.format(use=BASELINES / use), encoding="utf-8")
    file = tmp_path / "suite.toml"
    file.write_text(SUITE, encoding="utf-8")
    return file


def test_embedders_stand_in_order_with_alignment_costs_and_what_is_missing(
    command: Callable[..., Said], suite: Path, tmp_path: Path
) -> None:
    empty = command("leaderboard", suite)
    assert (empty.code, empty.err.count("\n")) == (2, 1) and "reaemb-bench bench" in empty.err
    assert command("bench", suite).code == 0
    more = " ".join(command("leaderboard", suite, "--set", "seeds=[1, 2, 3]").out.split())
    assert "not computed yet, `reaemb-bench bench` does it: random <b> (seed 3), counts (seed 3)" in more
    page, markdown = tmp_path / "page.html", tmp_path / "page.md"
    for file in (page, markdown):
        assert command("leaderboard", suite, "--out", file).code == 0
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.read_text().splitlines() if "|" in line
    ]
    headings = [row for row in rows if row[0] == "embedder"]
    assert len(headings) == 3
    assert headings[0][2:] == ["NDCG@10 large ↑", "group large", "NDCG@10 small ↑", "group small"]
    methods = rows[rows.index(headings[1]) + 2 :][:2]
    # The arrows say in which direction a column is better.
    names = [name.rstrip(" ↑↓") for name in headings[1]]
    ndcg, width, seconds = (names.index(name) for name in ("NDCG@10", "width", "s per 1,000"))
    values = [float(row[ndcg].strip("*").split()[0]) for row in methods]
    assert values == sorted(values, reverse=True)
    assert all(row[width] == "8" and float(row[seconds]) > 0 for row in methods)
    assert 0 < float(methods[0][names.index("percentile unseen")].split()[0]) < 1
    assert "price per 1,000" not in names
    html = page.read_text(encoding="utf-8")
    assert "random &lt;b&gt;" in html and "random <b>" not in html and "https://" not in html


def test_embedders_that_no_test_tells_apart_share_a_group() -> None:
    draw, users = np.random.default_rng(1), np.arange(400)
    base = draw.random(400)
    means = {"best": 0.5, "as good": 0.5, "worse": 0.2, "as bad": 0.2}
    noise = {name: draw.normal(0, 0.3, 400) for name in means}
    values = [MethodValues(name, users, users, base + mean + noise[name]) for name, mean in means.items()]
    values.sort(key=lambda method: -method.mean)
    groups, gaps = _groups(values)
    assert [groups[name] for name in means] == [1, 1, 2, 2]
    assert gaps["worse"].difference == pytest.approx(values[0].mean - values[-1].mean, abs=0.05)
