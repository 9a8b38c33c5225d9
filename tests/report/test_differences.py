"""The table of differences: its numbers, its verdicts and how it looks."""

from __future__ import annotations

import csv
import io
import json
from functools import cache, partial

import numpy as np
import pytest
from rich.console import Console

from reaemb_bench.core.artifacts import Int64, Ranks
from reaemb_bench.core.errors import UserError
from reaemb_bench.evaluation.metrics import hit_rate, ndcg
from reaemb_bench.evaluation.significance import MethodValues, bootstrap_interval, compare, method_values
from reaemb_bench.report import render as markdown
from reaemb_bench.report import render as terminal
from reaemb_bench.report.render import as_csv, as_json
from reaemb_bench.report.results import differences_table
from reaemb_bench.report.table import Cell, Row, Table, number, signed

USERS = 120


def ranks(better: Int64) -> Ranks:
    """Every second user's target is a tail item."""
    none = np.zeros(len(better), dtype=np.int64)
    return Ranks(
        users=np.arange(len(better)),
        targets=np.arange(len(better), dtype=np.int32),
        better=better,
        tied=none,
        sampled_better=better // 2,
        sampled_tied=none,
        popularity=np.where(np.arange(len(better)) % 2, 40, 5),
        history=none + 8,
        catalogue=none + 90,
    )


def places(seed: int) -> Int64:
    return np.random.default_rng(seed).integers(3, 30, USERS)


BASE = [ranks(places(1)), ranks(places(2))]
TAIL = np.arange(USERS) % 2 == 0
NAMED = {
    "worse in tail": [ranks(np.where(TAIL, 50, each.better)) for each in BASE],
    "base": BASE,
    "better": [ranks(np.zeros(USERS, dtype=np.int64))],
    "chance": [ranks(places(3))],
    "same": BASE,
}


@cache
def table() -> Table:
    return differences_table("Differences", NAMED, "base")


def cells(row: Row) -> dict[str, Cell]:
    return dict(zip((column.name for column in table().columns), row.cells, strict=True))


def by_name() -> dict[str, dict[str, Cell]]:
    return {row.name: cells(row) for row in table().rows}


def test_the_reference_stands_on_top_with_its_own_numbers_and_no_difference() -> None:
    made = table()
    assert [row.name for row in made.rows] == ["base", "worse in tail", "better", "chance", "same"]
    values = ndcg(np.stack([each.better for each in BASE]), np.zeros((2, USERS), dtype=np.int64), 10).mean(0)
    row = by_name()["base"]
    assert row["NDCG@10"].value == pytest.approx(values.mean())
    assert row["NDCG@10 tail"].value == pytest.approx(values[TAIL].mean())
    assert row["NDCG@10 head"].value == pytest.approx(values[~TAIL].mean())
    assert row["NDCG@10"].sd is not None
    assert all(row[f"Δ NDCG@10{part}"].missing for part in ("", " tail", " head"))


def test_each_difference_is_that_of_the_columns_before_it_with_its_own_interval() -> None:
    rows = by_name()
    values = {name: method_values(name, seeds, partial(ndcg, k=10)).values for name, seeds in NAMED.items()}
    members = {"": np.ones(USERS, dtype=np.bool_), " tail": TAIL, " head": ~TAIL}
    for name in ("worse in tail", "better", "chance"):
        for part, inside in members.items():
            cell = rows[name][f"Δ NDCG@10{part}"]
            own, base = rows[name][f"NDCG@10{part}"].value, rows["base"][f"NDCG@10{part}"].value
            assert own is not None and base is not None
            assert cell.value == pytest.approx(own - base)
            assert cell.interval == bootstrap_interval((values[name] - values["base"])[inside])


def test_verdicts_say_what_was_planted_and_where() -> None:
    rows = by_name()
    said = {name: [row[f"Δ NDCG@10{part}"].verdict for part in ("", " tail", " head")] for name, row in rows.items()}
    assert said == {
        "base": ["", "", ""],
        "worse in tail": ["worse", "worse", "equal"],
        "better": ["better", "better", "better"],
        "chance": ["none shown", "none shown", "none shown"],
        "same": ["equal", "equal", "equal"],
    }


def test_the_correction_is_over_all_differences_of_the_table() -> None:
    # A small effect that a lone test shows, and that drowns among many comparisons.
    rng = np.random.default_rng(11)
    base = places(7)
    moved = np.where(rng.random(USERS) < 0.1, np.maximum(base - 6, 0), base)
    alone = {"base": [ranks(base)], "moved": [ranks(moved)]}
    among = alone | {f"chance {seed}": [ranks(places(seed))] for seed in range(20, 32)}
    metric = partial(ndcg, k=10)
    of: list[MethodValues] = [method_values(name, seeds, metric) for name, seeds in alone.items()]
    raw = compare([(of[1], of[0])], "NDCG@10")[0].p
    assert 0.05 / 39 < raw < 0.05 / 3
    verdicts = [
        next(row for row in differences_table("", named, "base").rows if row.name == "moved").cells[3].verdict
        for named in (alone, among)
    ]
    assert verdicts == ["better", "none shown"]
    assert "after Holm over the 39 differences of this table" in differences_table("", among, "base").notes[0]


def test_another_metric_and_cut_off_are_what_the_headings_say() -> None:
    made = differences_table("", NAMED, "base", metric="hr", k=5)
    assert [column.name for column in made.columns][:4] == ["HR@5", "HR@5 tail", "HR@5 head", "Δ HR@5"]
    expected = np.mean([hit_rate(each.better, each.tied, 5) for each in NAMED["chance"]])
    row = next(row for row in made.rows if row.name == "chance")
    assert row.cells[0].value == pytest.approx(expected)
    assert differences_table("", NAMED, "base", metric="mrr").columns[0].name == "MRR"


def test_a_group_of_one_user_has_no_difference_and_a_lone_method_none_at_all() -> None:
    made = differences_table("", {"a": [ranks(places(1)[:3])], "b": [ranks(places(2)[:3])]}, "a")
    assert [cell.missing for cell in made.rows[1].cells[3:]] == [False, False, True]
    assert "head" not in made.notes[1]
    alone = differences_table("", {"a": BASE}, "a")
    assert len(alone.rows) == 1
    assert alone.notes == ("no differences: they need two methods and two test users",)


def test_leaks_are_marked_by_row() -> None:
    made = differences_table("", NAMED, "base", leaks=["better"])
    assert [row.name for row in made.rows if row.leaks] == ["better"]
    assert made.notes[-1] == "† looks at held-out data on purpose: no fair comparison"


def test_the_smallest_detectable_difference_stands_below() -> None:
    of = {name: method_values(name, seeds, partial(ndcg, k=10)) for name, seeds in NAMED.items()}
    found = compare([(of[name], of["base"]) for name in ("better", "chance")], "")
    note = differences_table("", {name: NAMED[name] for name in ("base", "better", "chance")}, "base").notes[1]
    least, most = sorted(number(each.detectable) for each in found)
    assert f"all {least} to {most} (120 users), tail " in note


def test_an_unknown_reference_and_other_users_are_refused() -> None:
    with pytest.raises(UserError, match=r"no method is called 'bas'\. Did you mean 'base'"):
        differences_table("", NAMED, "bas")
    with pytest.raises(UserError, match="different users or targets"):
        differences_table("", {"a": BASE, "b": [ranks(places(1)[:50])]}, "a")


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_and_bound_is_there_at_80_columns(width: int) -> None:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(terminal.render_terminal(table()))
    shown = file.getvalue()
    assert max(len(line) for line in shown.splitlines()) <= width
    assert "…" not in shown
    for row in table().rows:
        for cell in row.cells[3:]:
            assert cell.missing == (cell.interval is None)
            if cell.interval is not None:
                assert f"({' '.join(map(signed, cell.interval))})" in shown


GOLDEN = """\
on NDCG@10, best is better than base

| method | NDCG@10 ↑ | NDCG@10 tail ↑ | NDCG@10 head ↑ | Δ NDCG@10 ↑ | Δ NDCG@10 tail ↑ | Δ NDCG@10 head ↑ |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| base | .1934 | .0000 | .3869 | — | — | — |
| best | 1.0000 | 1.0000 | 1.0000 | +.8066 (+.7292 to +.8839) better | +1.0000 (+1.0000 to +1.0000) better | +.6131 \
(+.6131 to +.6131) better |

- Δ: minus base, over the same users, and its 95 % bootstrap interval; better, worse: a paired randomisation test at \
level .05 shows it after Holm over the 3 differences of this table; none shown: it does not, which does not prove \
equality; each interval is of its difference alone, so one may exclude 0 although none is shown
- smallest true difference that one such test, uncorrected, would show with probability .8: all .1243 (20 users), \
tail .0000 (10 users), head .0000 (10 users); tail: targets below 20 training interactions
"""


def test_markdown_as_it_looks() -> None:
    base = np.where(np.arange(20) % 2, 4, 50)
    made = differences_table("", {"base": [ranks(base)], "best": [ranks(0 * base)]}, "base")
    assert markdown.render_markdown(made) == GOLDEN


def test_files_hold_interval_and_verdict_in_full() -> None:
    cell = by_name()["better"]["Δ NDCG@10 tail"]
    assert cell.interval is not None
    rows = json.loads(as_json("", [table()]))["tables"][0]["rows"]
    read = next(row for row in rows if row["method"] == "better")["cells"]["Δ NDCG@10 tail"]
    assert (read["value"], *read["interval"], read["verdict"]) == (cell.value, *cell.interval, "better")
    lines = list(csv.DictReader(io.StringIO(as_csv("", [table()]))))
    line = next(each for each in lines if each["method"] == "better")
    parts = ["Δ NDCG@10 tail", "Δ NDCG@10 tail low", "Δ NDCG@10 tail high"]
    assert [float(line[part]) for part in parts] == [cell.value, *cell.interval]
    assert line["Δ NDCG@10 tail verdict"] == "better"
    assert "Δ NDCG@10 tail sd" not in line
