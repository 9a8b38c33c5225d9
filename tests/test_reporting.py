"""The table of results: what stands in it, and how it looks in the terminal and in Markdown."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console

from reaemb_bench.artifacts import Floors, Ranks
from reaemb_bench.errors import UserError
from reaemb_bench.reporting import markdown, terminal
from reaemb_bench.reporting.results import results_table
from reaemb_bench.reporting.table import Cell, Column, Row, Table, mark_best, number


def ranks(places: Sequence[int], popularity: int = 5) -> Ranks:
    count = len(places)
    better = np.array(places, dtype=np.int64)
    none = np.zeros(count, dtype=np.int64)
    return Ranks(
        users=np.arange(count),
        targets=np.arange(count, dtype=np.int32),
        better=better,
        tied=none,
        sampled_better=better // 2,
        sampled_tied=none,
        popularity=np.where(np.arange(count) % 2, 40, popularity),
        history=np.arange(count) + 8,
        catalogue=none + 90,
    )


FLOORS = Floors({"random": ranks([50, 60, 9, 80]), "popularity": ranks([20, 3, 30, 4])})
TWO_SEEDS = [ranks([0, 1, 2, 3]), ranks([1, 1, 9, 12])]


def seen(table: Table, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(terminal.render(table))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


GOLDEN_MARKDOWN = """\
### Toys

| method | HR@10 | NDCG@10 | MRR | NDCG@10 tail | NDCG@10 head | NDCG@10 short | NDCG@10 long | NDCG@10 cold | HR@10 \
sampled-100 | NDCG@10 sampled-100 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| reaemb † | **.8750** ± .1768 | **.5141** ± .1787 | **.4075** ± .1602 | **.6050** ± .2051 | **.4231** ± .1523 | \
**.7232** ± .1305 | **.3049** ± .2268 | — | **1.0000** ± .0000 | **.7478** ± .0958 |
| *random* | .2500 | .0723 | .0371 | .1445 | .0000 | .0000 | .1445 | — | .2500 | .0967 |
| *popularity* | .5000 | .2044 | .1325 | .0000 | .4088 | .2153 | .1934 | — | .5000 | .2827 |

- 4 test users; each target is ranked against 90 items, itself included: the whole catalogue without the user's \
history
- targets by training interactions: tail below 20 (2 users), head (2), cold none (0); histories: short below 10 \
items (2), long (2)
- sampled: against 100 stored candidates a user, for comparison with papers only; such metrics can reverse an order
- mean ± standard deviation over 2 seeds
- † looks at held-out data on purpose (crrl): no fair comparison
"""

GOLDEN_TERMINAL = """\
Toys
                                                                      HR    NDCG
                                  NDCG   NDCG   NDCG   NDCG NDCG     @10     @10
               HR   NDCG           @10    @10    @10    @10  @10 sampled sampled
              @10    @10    MRR   tail   head  short   long cold    -100    -100
────────────────────────────────────────────────────────────────────────────────
reaemb †    .8750  .5141  .4075  .6050  .4231  .7232  .3049    —  1.0000   .7478
           ±.1768 ±.1787 ±.1602 ±.2051 ±.1523 ±.1305 ±.2268       ±.0000  ±.0958

random      .2500  .0723  .0371  .1445  .0000  .0000  .1445    —   .2500   .0967
popularity  .5000  .2044  .1325  .0000  .4088  .2153  .1934    —   .5000   .2827
4 test users; each target is ranked against 90 items, itself included: the whole
catalogue without the user's history
targets by training interactions: tail below 20 (2 users), head (2), cold none
(0); histories: short below 10 items (2), long (2)
sampled: against 100 stored candidates a user, for comparison with papers only;
such metrics can reverse an order
mean ± standard deviation over 2 seeds
† looks at held-out data on purpose (crrl): no fair comparison
"""


def golden() -> Table:
    return results_table("Toys", {"reaemb": TWO_SEEDS}, FLOORS, ["crrl"], sampled=100)


def test_markdown_as_it_looks() -> None:
    assert markdown.render(golden()) == GOLDEN_MARKDOWN


def test_terminal_as_it_looks_at_80_columns() -> None:
    assert seen(golden(), 80) == GOLDEN_TERMINAL.rstrip("\n")


@pytest.mark.parametrize("width", [80, 100, 160])
def test_every_number_is_there_whatever_the_width(width: int) -> None:
    named = {"reaemb_full": TWO_SEEDS, "a method with a name that is far too long": TWO_SEEDS}
    table = results_table("Toys", named, FLOORS, ["crrl"])
    shown = seen(table, width)
    assert max(len(line) for line in shown.splitlines()) <= width
    for row in table.rows:
        for cell in row.cells:
            assert cell.value is None or number(cell.value) in shown
    assert "…" not in shown


def test_methods_stand_before_floors_and_one_seed_has_no_deviation() -> None:
    table = results_table("Toys", {"reaemb": TWO_SEEDS[:1]}, FLOORS, [])
    assert [(row.name, row.floor, row.leaks) for row in table.rows] == [
        ("reaemb", False, False),
        ("random", True, False),
        ("popularity", True, False),
    ]
    assert all(cell.sd is None for row in table.rows for cell in row.cells)
    assert not any("seeds" in note or "held-out" in note for note in table.notes)


def test_methods_may_have_different_numbers_of_seeds() -> None:
    table = results_table("Toys", {"one": TWO_SEEDS[:1], "two": TWO_SEEDS}, None, [])
    assert [row.cells[0].sd is None for row in table.rows] == [True, False]
    assert table.notes[-1] == "mean ± standard deviation over 1 to 2 seeds"


def test_an_empty_group_is_missing_and_another_threshold_moves_the_groups() -> None:
    table = results_table("Toys", {"reaemb": TWO_SEEDS}, None, [])
    place = [column.name for column in table.columns].index("NDCG@10 cold")
    assert all(row.cells[place].missing for row in table.rows)
    cold = results_table("Toys", {"reaemb": [ranks([0, 1, 2, 3], popularity=0)]}, None, [], tail=3, short=9)
    values = {column.name: cell.value for column, cell in zip(cold.columns, cold.rows[0].cells, strict=True)}
    assert values["NDCG@10 tail"] is None
    assert values["NDCG@10 cold"] == pytest.approx((1 + 0.5) / 2)
    assert values["NDCG@10 short"] == 1.0
    assert any("tail below 3 (0 users)" in note and "cold none (2)" in note for note in cold.notes)


def test_without_candidates_the_sampled_columns_are_missing() -> None:
    alone = Ranks(**{**vars(TWO_SEEDS[0]), "sampled_better": np.full(4, -1)})
    table = results_table("Toys", {"reaemb": [alone]}, None, [])
    assert [cell.missing for cell in table.rows[0].cells][-2:] == [True, True]
    assert "sampled: no candidates were stored" in table.notes


def test_results_of_other_users_are_no_rows_of_the_same_table() -> None:
    with pytest.raises(UserError, match="rank different users"):
        results_table("Toys", {"a": [ranks([1, 2, 3, 4])], "b": [ranks([1, 2, 3])]}, None, [])


def test_a_table_without_test_users_says_so() -> None:
    table = results_table("Toys", {"a": [ranks([])]}, None, [])
    assert table.notes == ("no test user",)
    assert all(cell.missing for cell in table.rows[0].cells)


def test_what_prints_the_same_is_equally_good() -> None:
    rows = [Row("a", (Cell(0.12341), Cell(None))), Row("b", (Cell(0.12339), Cell(0.1))), Row("c", (Cell(0.1), Cell(0)))]
    marked = mark_best(rows)
    assert [[cell.best for cell in row.cells] for row in marked] == [[True, False], [True, True], [False, False]]
    assert not mark_best(rows[:1])[0].cells[0].best


def test_markdown_keeps_bars_out_of_names() -> None:
    table = Table("a|b", (Column("HR@10"),), (Row("x|y", (Cell(1.0),)),), ())
    assert markdown.render(table).splitlines()[-1] == "| x\\|y | 1.0000 |"


def test_numbers_have_four_decimals() -> None:
    assert [number(value) for value in (0.0, 0.05034, 0.99996, 1.0)] == [".0000", ".0503", "1.0000", "1.0000"]
