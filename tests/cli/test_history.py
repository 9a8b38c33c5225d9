"""The list of remembered runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Ranks
from reaemb_bench.core.runs import Group, find, ranks_of
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.metrics import ndcg
from tests.conftest import Said
from tests.helpers.stored_runs import STORE, refused, run_all

Command = Callable[..., Said]


@pytest.fixture
def store(command: Command, tmp_path: Path) -> Store:
    return run_all(command, tmp_path)


@pytest.fixture
def edit(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have the store remember a run otherwise; `leaky` is the newest, then come `poor` and `good`, a day apart."""
    days = {
        name: {"finished": f"2026-02-0{day}T12:30:00+00:00"} for day, name in enumerate(("good", "poor", "leaky"), 1)
    }
    runs = {name: replace(find(store, name), **changed) for name, changed in days.items()}
    monkeypatch.setattr(
        "reaemb_bench.core.runs.history", lambda _: sorted(runs.values(), key=lambda run: run.finished, reverse=True)
    )

    def change(name: str, **changed: Any) -> None:
        runs[name] = replace(runs[name], **changed)

    return change


def _rows(text: str) -> list[list[str]]:
    return [
        line.split() for line in text.splitlines()[1:] if "T" not in line and line.startswith(tuple("0123456789abcdef"))
    ]


def test_runs_are_listed_newest_first_with_their_numbers(
    store: Store, command: Command, edit: Callable[..., None]
) -> None:
    edit("poor", git="0123456789abcdef-dirty", groups=(Group("bench", "quick"),))
    said = command("history")
    assert said.code == 0, said.err
    leaky, poor, good = _rows(said.out)
    assert [row[0] for row in (leaky, poor, good)] == [find(store, name).id for name in ("leaky", "poor", "good")]
    ranks = ranks_of(find(store, "poor"), store)[0]
    values = ndcg(ranks.better, ranks.tied, 10)
    tail = values[(ranks.popularity > 0) & (ranks.popularity < 20)]
    shown = [f"{mean:.4f}".lstrip("0") for mean in (values.mean(), tail.mean())]
    assert poor[1:] == ["2026-02-02", "12:30", "poor", "bench", "quick", "toys", "42", *shown, "01234567-dirty"]
    assert good[1:7] == ["2026-02-01", "12:30", "good", "run", "toys", "1,"]
    assert leaky[-2:] == ["†", "peek"]
    assert "† looks at held-out data on purpose" in said.out


def test_json_has_means_over_seeds_in_full(store: Store, command: Command, edit: Callable[..., None]) -> None:
    runs = json.loads(command("history", "--json").out)
    assert [run["name"] for run in runs] == ["leaky", "poor", "good"]
    seeds = ranks_of(find(store, "good"), store)
    assert runs[2]["ndcg@10"] == pytest.approx(np.mean([ndcg(each.better, each.tied, 10).mean() for each in seeds]))
    assert (runs[2]["seeds"], runs[0]["leaks"]) == ([1, 2], ["peek"])


def test_runs_whose_ranks_are_gone_stay_listed_without_numbers(
    store: Store, command: Command, edit: Callable[..., None]
) -> None:
    key = find(store, "poor").key_of(Ranks)
    assert key is not None
    (store.folder(key) / "manifest.json").unlink()
    runs = json.loads(command("history", "--json").out)
    assert [run["ndcg@10"] is None for run in runs] == [False, True, False]
    assert command("history").out.count("—") == 2


def test_runs_are_picked_by_name_data_group_and_number(
    store: Store, command: Command, edit: Callable[..., None]
) -> None:
    edit("poor", data="beauty", groups=(Group("run", ""), Group("ablation", "thoughts")))

    def names(*words: str) -> list[str]:
        return [run["name"] for run in json.loads(command("history", "--json", *words).out)]

    assert names("--limit", "1") == ["leaky"]
    assert names("--data", "beauty") == names("--group", "thoughts") == ["poor"]
    assert names("--name", "good", "--data", "toys") == ["good"]
    assert names("--name", "good", "--data", "beauty") == []
    assert "1 of 3 runs; --limit shows more" in command("history", "--limit", "1").out
    assert command("history", "--name", "absent").out == "no such run is remembered\n"


def test_mistakes_are_one_line(command: Command, store: Store) -> None:
    refused(command("history", "--store", "nowhere"), "there is no store nowhere; run a recipe first")
    refused(command("history", "--limit", "0"), "--limit")
    (STORE / "runs" / "broken.json").write_text("{}", encoding="utf-8")
    refused(command("history"), "broken.json is not a record of a run")
