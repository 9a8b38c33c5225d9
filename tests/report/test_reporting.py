"""The table of results: what stands in it, and how it looks in the terminal and in Markdown."""

import html
import io
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom

from reaemb_bench.core.artifacts import Floors, Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.evaluation.significance import Comparison
from reaemb_bench.report import render as markdown
from reaemb_bench.report import render as terminal
from reaemb_bench.report.render import as_svg
from reaemb_bench.report.results import lists_table, results_table, sentence, verdicts
from reaemb_bench.report.table import Cell, Column, Row, Table, headings, mark_best, number


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
    Console(file=file, width=width, color_system=None).print(terminal.render_terminal(table))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


GOLDEN_MARKDOWN = """\
### Toys

reaemb † is not shown to differ from popularity (the best floor) on NDCG@10

| method | HR@10 ↑ | NDCG@10 ↑ | MRR ↑ | NDCG@10 tail ↑ | NDCG@10 head ↑ | NDCG@10 cold ↑ | NDCG@10 short ↑ | \
NDCG@10 long ↑ | HR@10 sampled-100 ↑ | NDCG@10 sampled-100 ↑ |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| reaemb † | **.8750** ± .1768 | **.5141** ± .1787 | **.4075** ± .1602 | **.6050** ± .2051 | **.4231** ± .1523 | — | \
**.7232** ± .1305 | **.3049** ± .2268 | **1.0000** ± .0000 | **.7478** ± .0958 |
| *random* | .2500 | .0723 | .0371 | .1445 | .0000 | — | .0000 | .1445 | .2500 | .0967 |
| *popularity* | .5000 | .2044 | .1325 | .0000 | .4088 | — | .2153 | .1934 | .5000 | .2827 |

- 4 test users; each target is ranked against 90 items, itself included: the whole catalogue without the user's history
- targets by training interactions: tail below 20 (2 users), head (2), cold none (0); histories: short below 10 \
items (2), long (2)
- sampled: against 100 stored candidates a user, for comparison with papers only; such metrics can reverse an order
- mean ± standard deviation over 2 seeds
- no difference shown between reaemb † and popularity on NDCG@10: +.3097 (95 % interval -.0300 to +.6617, p = \
.2583); 4 users could have shown .5756
- † looks at held-out data on purpose (crrl): no fair comparison
"""

GOLDEN_TERMINAL = """\
Toys
reaemb † is not shown to differ from popularity (the best floor) on NDCG@10

             ────── overall ↑ ──────      NDCG@10, target ↑   NDCG@10, history ↑
method        HR@10  NDCG@10     MRR     tail    head  cold        short    long
────────────────────────────────────────────────────────────────────────────────
reaemb †      .8750    .5141   .4075    .6050   .4231     —        .7232   .3049
             ±.1768   ±.1787  ±.1602   ±.2051  ±.1523             ±.1305  ±.2268

random        .2500    .0723   .0371    .1445   .0000     —        .0000   .1445
popularity    .5000    .2044   .1325    .0000   .4088     —        .2153   .1934

               sampled-100 ↑
method        HR@10  NDCG@10
────────────────────────────
reaemb †     1.0000    .7478
             ±.0000   ±.0958

random        .2500    .0967
popularity    .5000    .2827

· 4 test users; each target is ranked against 90 items, itself included: the
  whole catalogue without the user's history
· targets by training interactions: tail below 20 (2 users), head (2), cold none
  (0); histories: short below 10 items (2), long (2)
· sampled: against 100 stored candidates a user, for comparison with papers
  only; such metrics can reverse an order
· mean ± standard deviation over 2 seeds
· no difference shown between reaemb † and popularity on NDCG@10: +.3097 (95 %
  interval -.0300 to +.6617, p = .2583); 4 users could have shown .5756
· † looks at held-out data on purpose (crrl): no fair comparison
"""


def golden() -> Table:
    return results_table("Toys", {"reaemb": TWO_SEEDS}, FLOORS, ["crrl"], sampled=100)


def test_markdown_as_it_looks() -> None:
    assert markdown.render_markdown(golden()) == GOLDEN_MARKDOWN


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


def test_groups_that_do_not_fit_follow_below_and_wide_and_narrow_are_one_block() -> None:
    table, screen = golden(), Console(file=io.StringIO(), width=60, color_system=None)
    assert seen(table, 60).count("method ") == 2
    screen.print(terminal.render_terminal(table, wide=True), crop=False)
    assert isinstance(screen.file, io.StringIO)
    (headings,) = (line for line in screen.file.getvalue().splitlines() if line.startswith("method"))
    assert headings.split()[1:] == [column.below for column in table.columns]
    short = terminal.narrow(table)
    assert [column.name for column in short.columns] == [column.name for column in table.columns][:8]
    assert all(len(row.cells) == 8 for row in short.rows) and short.notes[-1] == "2 more columns without --narrow"
    assert terminal.narrow(short) == short


def test_an_arrow_stands_once_over_columns_that_share_a_direction() -> None:
    cost, up = Column("minutes", cost=True, group="costs", better="lower"), Column("HR@10", group="overall")
    down = Column("loss", group="overall", better="lower")
    assert headings([up, up, cost]) == ([("overall ↑", 2), ("costs ↓", 1)], ["HR@10", "HR@10", "minutes"])
    assert headings([up, down]) == ([("overall", 2)], ["HR@10 ↑", "loss ↓"])
    assert headings([Column("NDCG@10", "tail"), Column("width", cost=True)]) == (
        [("NDCG@10 ↑", 1), ("", 1)],
        ["tail", "width"],
    )


def test_the_verdict_names_the_best_method_and_what_it_beats() -> None:
    floors = Floors({"random": many(90), "popularity": many(12)})
    methods = {"good": [many(4), many(5)], "fair": [many(4.8)], "poor": [many(60)]}
    said = results_table("", methods, floors, []).verdict
    assert said == (
        "good, the best of 3 methods, beats popularity (the best floor) and poor and is not shown to differ from fair "
        "on NDCG@10"
    )
    assert results_table("", {"poor": [many(60)]}, floors, []).verdict == (
        "poor loses to popularity (the best floor) on NDCG@10"
    )
    assert results_table("", {"poor": [many(60)]}, None, []).verdict == ""


def test_methods_stand_before_floors_and_one_seed_has_no_deviation() -> None:
    table = results_table("Toys", {"reaemb": TWO_SEEDS[:1]}, FLOORS, [])
    assert [(row.name, row.floor, row.leaks) for row in table.rows] == [
        ("reaemb", False, False),
        ("random", True, False),
        ("popularity", True, False),
    ]
    assert all(cell.sd is None for row in table.rows for cell in row.cells)
    assert not any("seeds" in note or "held-out" in note for note in table.notes)


def test_only_methods_that_leak_are_marked_and_sentences_can_be_left_out() -> None:
    named = {"one": TWO_SEEDS, "two": TWO_SEEDS}
    table = results_table("", named, FLOORS, ["crrl"], leaking=["two"], compared=False)
    assert [row.leaks for row in table.rows] == [False, True, False, False]
    assert table.notes[-1] == "† looks at held-out data on purpose (crrl): no fair comparison"
    assert not any("difference" in note or "beats" in note for note in table.notes)


def test_methods_may_have_different_numbers_of_seeds() -> None:
    table = results_table("Toys", {"one": TWO_SEEDS[:1], "two": TWO_SEEDS}, None, [])
    assert [row.cells[0].sd is None for row in table.rows] == [True, False]
    assert "mean ± standard deviation over 1 to 2 seeds" in table.notes


def test_a_seed_that_the_embedder_keeps_is_told() -> None:
    table = results_table("Toys", {"two": TWO_SEEDS}, None, [], embedder_seed=7)
    assert "mean ± standard deviation over 2 seeds of the recommender, the embedder's being 7 in all" in table.notes
    assert not any("embedder" in note for note in golden().notes)


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
    with pytest.raises(UserError, match="different users or targets"):
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
    assert markdown.render_markdown(table).splitlines()[-1] == "| x\\|y | 1.0000 |"


def test_numbers_have_four_decimals() -> None:
    assert [number(value) for value in (0.0, 0.05034, 0.99996, 1.0)] == [".0000", ".0503", "1.0000", "1.0000"]


BEATS = Comparison(
    first="reaemb_full",
    second="item-knn",
    metric="NDCG@10",
    users=943,
    difference=0.02754,
    low=0.02111,
    high=0.03389,
    p=0.0001,
    adjusted_p=0.0002,
    family=1,
    detectable=0.0091,
)


def test_a_verdict_says_who_beats_whom_by_how_much_and_how_sure() -> None:
    assert sentence(BEATS) == (
        "reaemb_full beats item-knn on NDCG@10: +.0275 (95 % interval +.0211 to +.0339, p = .0002, 943 users)"
    )
    worse = replace(BEATS, difference=-0.02754, low=-0.03389, high=-0.02111, family=3, users=22363)
    assert sentence(worse) == (
        "reaemb_full loses to item-knn on NDCG@10: -.0275 "
        "(95 % interval -.0339 to -.0211, p = .0002 after Holm over 3 comparisons, 22,363 users)"
    )


def test_a_verdict_on_little_says_what_could_have_been_shown() -> None:
    close = replace(BEATS, difference=-0.0023, low=-0.0113, high=0.0067, adjusted_p=0.6421, detectable=0.0129)
    assert sentence(close) == (
        "no difference shown between reaemb_full and item-knn on NDCG@10: -.0023 "
        "(95 % interval -.0113 to +.0067, p = .6421); 943 users could have shown .0129"
    )


def test_the_corrected_p_value_decides() -> None:
    assert sentence(replace(BEATS, p=0.02, adjusted_p=0.06, family=3)).startswith("no difference shown")
    assert sentence(replace(BEATS, adjusted_p=0.05)).startswith("reaemb_full beats")


def test_methods_that_rank_alike_are_equal() -> None:
    same = replace(BEATS, difference=0.0, low=0.0, high=0.0, adjusted_p=1.0, detectable=0.0)
    assert sentence(same) == "reaemb_full and item-knn are equal on NDCG@10 for every one of 943 users"


def many(mean_place: float, users: int = 400) -> Ranks:
    return ranks(np.random.default_rng(int(10 * mean_place)).geometric(1 / mean_place, users).tolist())


def test_each_method_meets_the_best_floor_and_the_best_method() -> None:
    methods = {"good": [many(4), many(5)], "fair": [many(4.8)], "poor": [many(60)]}
    said = verdicts(methods, {"random": many(90), "popularity": many(12)}, k=10)
    assert [line.partition(" on NDCG@10")[0] for line in said] == [
        "good beats popularity",
        "fair beats popularity",
        "poor loses to popularity",
        "no difference shown between good and fair",
        "good beats poor",
    ]
    # Three against the floor, and three pairs of which the two with the best method are shown.
    assert all("after Holm over 6 comparisons" in line for line in said)


def test_one_method_alone_needs_no_correction_and_without_floors_says_nothing() -> None:
    (line,) = verdicts({"good": [many(4)]}, {"popularity": many(12)}, k=10)
    assert line.startswith("good beats popularity on NDCG@10: +") and "Holm" not in line
    assert verdicts({"good": [many(4)]}, {}, k=10) == []
    (line,) = verdicts({"good": [many(4)], "poor": [many(60)]}, {}, k=10)
    assert line.startswith("good beats poor") and "Holm" not in line
    assert verdicts({"good": [many(4, users=1)]}, {"popularity": many(12, users=1)}, k=10) == []


@pytest.mark.slow
def test_verdicts_of_equal_methods_are_rarely_wrong_though_the_best_is_picked_by_the_same_users() -> None:
    rng = np.random.default_rng(20)
    wrong = 0
    for _ in range(60):
        methods = {name: [ranks(rng.geometric(0.1, 60).tolist())] for name in "abcde"}
        wrong += any("beats" in line for line in verdicts(methods, {}, k=10))
    assert wrong <= binom.ppf(0.999, 60, 0.05)


def test_lists_say_how_even_and_how_popular_they_are() -> None:
    short = np.full((2, 10), -1, dtype=np.int32)
    short[:, :2] = [0, 1]
    same = replace(ranks([0, 1]), recommended=short, item_popularity=np.array([40, 30, 5, 0]))
    lone = short.copy()
    lone[1, :2] = [2, -1]
    other = replace(same, recommended=lone)
    table = lists_table({"same": [same]}, Floors({"other": other}))
    assert table is not None
    numbers = {row.name: [cell.value for cell in row.cells] for row in table.rows}
    assert numbers["same"] == [0.5, 0.5, 35, 0]
    # Half of an average list is the lone item of the second list.
    assert numbers["other"] == [0.75, pytest.approx(0.25), (35 + 5) / 2, 0.5]
    assert not any(cell.best for row in table.rows for cell in row.cells), "no direction is the better one"
    assert lists_table({"none": [ranks([0, 1])]}, None) is None


def test_a_picture_of_the_terminal_says_the_same_and_fetches_nothing() -> None:
    picture = as_svg("Toys & <games>", [golden()])
    assert 'url("' not in picture
    shown = html.unescape(re.sub(r"<[^<>]+>", " ", picture)).replace("\xa0", " ")
    assert "Toys & <games>" in shown
    assert all(row.name in shown for row in golden().rows)
    assert as_svg("Toys & <games>", [golden()]) == picture
