"""The table of alignment says in one sentence whose vectors put items near that only their texts connect."""

from __future__ import annotations

from reaemb_bench.core.artifacts import Alignment
from reaemb_bench.report.alignment import alignment_table
from reaemb_bench.report.table import headings

PAIRS = {"train_pairs": 9.0, "validation_pairs": 8.0, "unseen_pairs": 7.0}


def measured(unseen: float) -> list[Alignment]:
    return [Alignment({"unseen_percentile": unseen, **PAIRS})]


def test_the_lowest_percentile_of_unseen_pairs_is_the_verdict() -> None:
    table = alignment_table({"far": measured(0.4), "near": measured(0.2), "as near": measured(0.2)})
    assert table is not None
    assert table.verdict == (
        "near and as near (the best): the second item of a pair that never co-occurs in training is nearer than 80 % "
        "of all items on average; 50 % is chance"
    )
    alone = alignment_table({"near": measured(0.25)})
    assert alone is not None and alone.verdict.startswith("near: the second item") and "75 %" in alone.verdict
    unknown = alignment_table({"near": [Alignment(PAIRS)]})
    assert unknown is not None and unknown.verdict == ""


def test_arrows_say_where_less_is_better() -> None:
    table = alignment_table({"near": measured(0.25)})
    assert table is not None
    assert [over for over, _ in headings(table.columns)[0]] == ["near ↑", "percentile ↓", "NDCG@10 ↑", ""]
