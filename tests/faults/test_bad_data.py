"""Data, however bad, become a sound corpus or are refused in one line that names the file and the cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Corpus, Floors, Ranks, TestTargets, ValidationTargets
from reaemb_bench.core.execute import execute, facts_of, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, plan
from reaemb_bench.core.recipe import from_raw
from reaemb_bench.core.store import Store
from tests.faults.mutations_data import Case, mutated
from tests.faults.outcomes import Tally

PREPARE: dict[str, Any] = {"steps": ["prepare"]}
ROAD: dict[str, Any] = {
    "steps": ["prepare", "train", "rank", "floors"],
    "train": {
        "use": "train-ids",
        "head": {"use": "sasrec", "hidden": 8, "max_length": 5, "blocks": 1, "attention_heads": 1},
        "epochs": 1,
    },
}


def _settings(case: Case) -> dict[str, Any]:
    return {"source": case.source, "split": case.split}


def _prepared(case: Case, store: Store) -> Plan:
    """The plan of the case's data, prepared; what is refused leaves no result behind."""
    planned = plan(from_raw({**PREPARE, "prepare": _settings(case)}, "mutated"), 1)
    try:
        execute(planned, store, Machine(cache=store.root / "cache"), lambda event: None)
    except BaseException:
        assert not list((store.root / "results").glob("*")), "something is left that a later run takes for a result"
        raise
    return planned


def _check(case: Case, planned: Plan, store: Store) -> None:
    corpus, validation_targets, test_targets = (
        fetch(planned, store, Corpus),
        fetch(planned, store, ValidationTargets),
        fetch(planned, store, TestTargets),
    )
    assert corpus is not None
    assert validation_targets is not None
    assert test_targets is not None
    facts = facts_of(planned, store, Corpus)
    _check_keys(corpus)
    training, histories = corpus.training, test_targets.histories
    assert training.users == histories.users == len(corpus.user_keys)
    judged = len(histories.items) + len(test_targets.users)
    assert judged == facts["interactions"] if case.split == "leave-last-two" else judged <= facts["interactions"]
    assert facts["users"] == corpus.users
    assert facts["items"] == corpus.items
    assert len(test_targets.users) > 0
    for part in (validation_targets, test_targets):
        assert len(np.unique(part.users)) == len(part.users)
    # Every user who is judged has a history.
    assert (training.lengths[validation_targets.users] > 0).all()
    assert (histories.lengths[test_targets.users] > 0).all()
    if case.split == "leave-last-two":
        assert (training.lengths[test_targets.users] > 0).all()
    for items in (training.items, histories.items, validation_targets.targets, test_targets.targets):
        assert items.min(initial=0) >= 0
        assert items.max(initial=0) < corpus.items
    whole = histories.followed_by(test_targets.users, test_targets.targets)
    _check_candidates(test_targets, [set(whole.of(user).tolist()) for user in range(corpus.users)])
    if case.expected is not None:
        training = {key: [corpus.item_keys[item] for item in whole.of(u)] for u, key in enumerate(corpus.user_keys)}
        assert training == case.expected


def _check_keys(corpus: Corpus) -> None:
    for keys in (corpus.item_keys, corpus.user_keys):
        assert len(set(keys)) == len(keys)
        assert all(isinstance(key, str) and key and key == key.strip(" \t\r\n") for key in keys)
    assert len(corpus.texts) == len(corpus.titles) == corpus.items
    assert all(corpus.titles)
    assert all(corpus.texts)


def _check_candidates(test_targets: TestTargets, touched: list[set[int]]) -> None:
    for user, row in zip(test_targets.users, test_targets.candidates, strict=True):
        drawn = set(row.tolist())
        assert len(drawn) == len(row)
        assert not drawn & touched[user]


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.faults)])
def test_mutated_data_are_prepared_soundly_or_refused_in_one_line(
    count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tally = Tally("mutated data, prepare")

    def tried(case: Case, store: Store) -> None:
        _check(case, _prepared(case, store), store)

    for seed in range(count):
        folder = tmp_path / str(seed)
        case, store = mutated(seed, folder), Store(folder / "store")
        tally.attempt(case.label, lambda case=case, store=store: tried(case, store))  # type: ignore[misc]
    tally.settle(record_property)


def _ranked(case: Case, store: Store) -> None:
    planned = plan(from_raw({**ROAD, "prepare": _settings(case)}, "mutated"), 1)
    execute(planned, store, Machine(cache=store.root / "cache"), lambda event: None)
    ranks, floors = fetch(planned, store, Ranks), fetch(planned, store, Floors)
    assert ranks is not None
    assert floors is not None
    for table in (ranks, *floors.by_name.values()):
        assert (table.better + table.tied < table.catalogue).all()


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.faults)])
def test_mutated_data_that_are_prepared_are_learned_from_or_refused_in_one_line(
    count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tally = Tally("mutated data, from ids to ranks and floors")
    for seed in range(count):
        folder = tmp_path / str(seed)
        case, store = mutated(seed, folder), Store(folder / "store")
        tally.attempt(case.label, lambda case=case, store=store: _ranked(case, store))  # type: ignore[misc]
    tally.settle(record_property)
