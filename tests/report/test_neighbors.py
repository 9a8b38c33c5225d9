"""Which items lie nearest to one, and which item a title means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reaemb_bench.core.artifacts import Corpus, Sequences, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.runs import artifact_of, find
from reaemb_bench.core.store import Store
from reaemb_bench.report.export import find_item, nearest
from tests.conftest import Said

Command = Callable[..., Said]

TITLES = ("1984", "Star Wars", "Star Trek", "Toy Story", "The Lion King", "star wars", "Heat", "Heat")


def corpus() -> Corpus:
    keys = ("b1", "b2", "b3", "b4", "1984", "b6", "b7", "b8")
    one = Sequences(np.arange(8, dtype=np.int32), np.array([0, 8], dtype=np.int64))
    return Corpus("films", one, keys, ("u",), "", TITLES, TITLES)


@pytest.mark.parametrize(
    ("wanted", "item"),
    [
        ("b3", 2),  # an id
        ("1984", 4),  # an id before the title of another
        ("Star Wars", 1),  # a title before the same in other letters
        ("TOY STORY", 3),  # in other letters
        ("lion", 4),  # a part
        ("The Lion Knig", 4),  # misspelt
    ],
)
def test_an_item_is_found_by_id_title_part_or_likeness(wanted: str, item: int) -> None:
    assert find_item(corpus(), wanted) == item


def test_an_ambiguous_title_names_its_candidates() -> None:
    with pytest.raises(
        UserError, match=r"'star' may mean 3 items: Star Wars \[b2\], Star Trek \[b3\], star wars \[b6\]"
    ):
        find_item(corpus(), "star")
    with pytest.raises(UserError, match=r"Heat \[b7\], Heat \[b8\]"):
        find_item(corpus(), "Heat")
    many = replace(corpus(), item_keys=tuple(f"k{item}" for item in range(30)), titles=("Same",) * 30)
    with pytest.raises(UserError, match="and 20 more"):
        find_item(many, "same")
    for wanted in ("zzzzzz", " ", ""):
        with pytest.raises(UserError, match="has the id or a title like"):
            find_item(corpus(), wanted)


def test_cosines_are_those_of_the_angle() -> None:
    rows = np.array([[2, 0], [0, 3], [1, 1], [-5, 0], [4, 0], [0, 0]], dtype=np.float32)
    found = nearest(Vectors(rows[:2], rows[2:]), 0, 10)
    assert [each.item for each in found] == [4, 2, 1, 3]
    assert [each.cosine for each in found] == pytest.approx([1, 0.5**0.5, 0, -1])
    assert nearest(Vectors(rows), 0, 2) == found[:2]
    with pytest.raises(UserError, match="all zeros"):
        nearest(Vectors(rows), 5, 3)


@given(
    arrays(np.float32, st.tuples(st.integers(2, 12), st.integers(1, 4)), elements=st.integers(-3, 3)),
    st.integers(1, 12),
    st.data(),
)
def test_the_nearest_are_those_of_all_pairs(rows: np.ndarray, count: int, data: st.DataObject) -> None:
    item = data.draw(st.integers(0, len(rows) - 1))
    cut = data.draw(st.integers(1, len(rows) - 1))
    if not rows[item].any():
        return
    found = nearest(Vectors(rows[:cut], rows[cut:]), item, count)
    others = [place for place in range(len(rows)) if place != item and rows[place].any()]
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    cosines = {place: float(rows[place] @ rows[item]) / lengths[place] / lengths[item] for place in others}
    assert len(found) == min(count, len(others))
    assert [each.cosine for each in found] == pytest.approx(sorted(cosines.values(), reverse=True)[:count], abs=1e-6)
    assert all(each.cosine == pytest.approx(cosines[each.item], abs=1e-6) for each in found)


def test_a_table_shows_the_nearest_of_one_run_and_of_another(command: Command, toy_recipe: Path) -> None:
    (toy_recipe.parent / "wide.toml").write_text("extends = 'toys.toml'\n[embed]\nwidth = 5\n", encoding="utf-8")
    assert command("run", toy_recipe).code == 0
    assert command("run", "wide.toml").code == 0
    said = command("neighbors", "toys", "i3", "--count", 4)
    assert said.code == 0, said.err
    assert "Nearest to i3 [i3], 2 training interactions" in said.out
    store = Store(Path(".reaemb-bench/store"))
    rows = _rows(said.out)
    near = nearest(artifact_of(find(store, "toys"), store, Vectors), 3, 4)
    expected = [[f"{each.cosine:.4f}", f"i{each.item}", f"i{each.item}"] for each in near]
    popularity = artifact_of(find(store, "toys"), store, Corpus).popularity
    assert rows == [
        [str(place + 1), *cells, str(popularity[each.item])]
        for place, (each, cells) in enumerate(zip(near, expected, strict=True))
    ]
    both = _rows(command("neighbors", "toys", "i3", "--count", 4, "--against", "wide").out)
    other = nearest(artifact_of(find(store, "wide"), store, Vectors), 3, 4)
    assert [row[:4] for row in both] == [row[:4] for row in rows]
    assert [row[6] for row in both] == [f"i{each.item}" for each in other]


def _rows(printed: str) -> list[list[str]]:
    below = printed.partition("─\n")[2]
    return [line.split() for line in below.splitlines() if line.strip()]


def test_what_cannot_be_shown_is_explained_in_one_line(command: Command, toy_recipe: Path) -> None:
    assert command("run", toy_recipe).code == 0
    for words, message in {
        ("toys", "1"): "'1' may mean 3 items: i1 [i1], i10 [i10], i11 [i11]",
        ("toys", "nothing"): "no item of toys has the id or a title like 'nothing'",
        ("nobody", "i1"): "remembers no run 'nobody'",
        ("toys", "i1", "--count", "0"): "--count",
        ("toys", "i1", "--vectors", "ranker"): "keeps no table of item vectors",
    }.items():
        said = command("neighbors", *words)
        assert said.code == 2
        assert message in said.err
        assert len(said.err.splitlines()) == 1
