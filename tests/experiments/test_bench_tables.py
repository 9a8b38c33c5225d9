"""What a suite's tables show: best and second, who beats the best baseline, costs, and their files."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from reaemb_bench.core import machine as environment
from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.report import render as terminal
from reaemb_bench.report.render import as_csv, as_json, as_markdown, write_tables
from reaemb_bench.report.results import against_best
from reaemb_bench.report.table import Cell, Column, Row, Table, mark_best, mark_second, quantity

pytestmark = pytest.mark.slow

COLUMNS = (Column("HR@10"), Column("NDCG@10", "tail"), Column("params", "trained", cost=True))


def example() -> Table:
    rows = [
        Row("tuned", (Cell(0.5, 0.012), Cell(0.31, 0.02, significant=True), Cell(134_515_008.0))),
        Row("broken", (Cell(None), Cell(None), Cell(None))),
        Row("plain", (Cell(0.42, 0.0), Cell(0.3), Cell(0.0)), leaks=True),
        Row("popularity", (Cell(0.42001), Cell(0.1), Cell(None)), floor=True),
    ]
    metrics = mark_second(mark_best([Row(row.name, row.cells[:2], row.floor, row.leaks) for row in rows]))
    whole = [
        Row(row.name, (*marked.cells, row.cells[2]), row.floor, row.leaks)
        for row, marked in zip(rows, metrics, strict=True)
    ]
    return Table("shop, sasrec", COLUMNS, tuple(whole), ("missing: broken, seed 1: out of toys",))


MARKDOWN = """\
## Suite

### shop, sasrec

| method | HR@10 ↑ | NDCG@10 tail ↑ | params trained |
| --- | ---: | ---: | ---: |
| tuned | **.5000** ± .0120 | **.3100**\\* ± .0200 | 135M |
| broken | — | — | — |
| plain † | <u>.4200</u> ± .0000 | <u>.3000</u> | 0 |
| *popularity* | <u>.4200</u> | .1000 | — |

- missing: broken, seed 1: out of toys
"""

TERMINAL = """\
shop, sasrec

                       NDCG@10 ↑    params
method       HR@10 ↑        tail   trained
──────────────────────────────────────────
tuned          .5000      .3100*      135M
              ±.0120      ±.0200
broken             —           —         —
plain †        .4200       .3000         0
              ±.0000

popularity     .4200       .1000         —

· missing: broken, seed 1: out of toys
"""

CSV = """\
title,table,method,floor,leaks,HR@10,HR@10 sd,NDCG@10 tail,NDCG@10 tail sd,params trained,params trained sd
Suite,"shop, sasrec",tuned,False,False,0.5,0.012,0.31,0.02,134515008.0,
Suite,"shop, sasrec",broken,False,False,,,,,,
Suite,"shop, sasrec",plain,False,True,0.42,0.0,0.3,,0.0,
Suite,"shop, sasrec",popularity,True,False,0.42001,,0.1,,,
"""


def test_markdown_as_it_looks() -> None:
    assert as_markdown("Suite", [example()]) == MARKDOWN


def test_terminal_as_it_looks() -> None:
    file = io.StringIO()
    Console(file=file, width=80, color_system=None).print(terminal.render_terminal(example()))
    assert [line.rstrip() for line in file.getvalue().splitlines()] == TERMINAL.splitlines()


def test_csv_as_it_looks() -> None:
    assert as_csv("Suite", [example()]) == CSV


def test_json_holds_numbers_in_full_and_what_is_marked() -> None:
    read = json.loads(as_json("Suite", [example()]))
    (table,) = read["tables"]
    assert (read["title"], table["title"], table["notes"]) == ("Suite", "shop, sasrec", list(example().notes))
    cells = {row["method"]: row["cells"] for row in table["rows"]}
    assert cells["tuned"]["NDCG@10 tail"] == {
        "value": 0.31,
        "sd": 0.02,
        "best": True,
        "second": False,
        "significant": True,
        "interval": None,
        "verdict": "",
        "unlike": False,
    }
    assert cells["popularity"]["HR@10"]["second"]
    assert cells["broken"]["HR@10"]["value"] is None


@pytest.mark.parametrize("ending", [".md", ".json", ".csv"])
def test_the_ending_of_a_file_says_its_format(ending: str, tmp_path: Path) -> None:
    file = tmp_path / "new" / f"table{ending}"
    write_tables(file, "Süite", [example(), example()])
    text = file.read_text(encoding="utf-8")
    assert text.startswith({".md": "## Süite\n", ".json": "{", ".csv": "title,"}[ending])
    if ending == ".csv":
        assert len(list(csv.DictReader(io.StringIO(text)))) == 8
    with pytest.raises(UserError, match="give one of"):
        write_tables(tmp_path / "table.txt", "Süite", [])


def test_second_is_the_next_number_that_prints_differently() -> None:
    values = [0.5, 0.49999, 0.4, 0.40001, 0.3]
    marked = mark_second(mark_best([Row(str(place), (Cell(value),)) for place, value in enumerate(values)]))
    assert [row.cells[0].best for row in marked] == [True, True, False, False, False]
    assert [row.cells[0].second for row in marked] == [False, False, True, True, False]


def test_quantities_have_three_digits() -> None:
    read = [quantity(value) for value in (0.0, 0.01234, 12.34, 999.4, 999.6, 4260, 134_515_008, 2.5e12, 1e16)]
    assert read == ["0", "0.0123", "12.3", "999", "1k", "4.26k", "135M", "2.5T", "10000T"]


def geometric(mean_place: float, users: int = 400) -> Ranks:
    places = np.random.default_rng(int(10 * mean_place)).geometric(1 / mean_place, users)
    none = np.zeros(users, dtype=np.int64)
    return Ranks(np.arange(users), np.arange(users, dtype=np.int32), places, none, places, none, none, none, none + 900)


def test_proposed_methods_meet_the_best_of_all_others() -> None:
    methods = {"ours": [geometric(4)], "ours too": [geometric(30)], "poor": [geometric(60)], "fair": [geometric(9)]}
    compared = against_best(methods, {"popularity": geometric(20)}, ["ours", "ours too"], k=10)
    assert [(each.first, each.second) for each in compared] == [("ours", "fair"), ("ours too", "fair")]
    # Two proposed methods by three others, of which the best was picked by the same users.
    assert {each.family for each in compared} == {6}
    assert [each.shown and each.difference > 0 for each in compared] == [True, False]


def test_where_nothing_is_proposed_the_best_meets_the_next_floors_included() -> None:
    methods = {"good": [geometric(4)], "poor": [geometric(60)]}
    (only,) = against_best(methods, {"popularity": geometric(20)}, [], k=10)
    assert (only.first, only.second, only.family) == ("good", "popularity", 3)
    assert against_best({"good": [geometric(4)]}, {}, [], k=10) == ()
    assert against_best(methods, {}, ["good", "poor"], k=10) == ()
    assert against_best({"a": [geometric(4, users=1)], "b": [geometric(9, users=1)]}, {}, [], k=10) == ()


def test_peak_memory_is_that_of_one_step() -> None:
    held = np.ones(40_000_000)
    before = environment.peak_memory()
    assert int(before["peak_memory_bytes"]) > held.nbytes
    if before["peak_memory_of"] != "ram":
        pytest.skip("this system only tells the peak of the whole process")
    del held
    environment.forget_peak_memory()
    after = environment.peak_memory()
    assert int(after["peak_memory_bytes"]) < int(before["peak_memory_bytes"]) - 200_000_000
