"""What lies in a store, where it came from, and what of it is deleted when."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reaemb_bench.core.inventory import DAY, delete, find_garbage
from reaemb_bench.core.runs import find, history, ranks_of
from reaemb_bench.core.store import Store
from tests.conftest import Said
from tests.helpers.chosen_ranks import TOYS
from tests.helpers.stored_runs import STORE, refused, run_all, write_recipes

Command = Callable[..., Said]


@pytest.fixture
def store(command: Command, tmp_path: Path) -> Store:
    return run_all(command, tmp_path)


@contextmanager
def _computing(store: Store, key: str) -> Iterator[None]:
    """Another process holds the lock of `key`."""
    script = (
        "import sys; from pathlib import Path; from reaemb_bench.core.store import Store\n"
        "with Store(Path(sys.argv[1])).lock(sys.argv[2]):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", script, str(store.root.resolve()), key]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield


def _key(store: Store, name: str, step: str) -> str:
    return next(result.key for result in find(store, name).results[0] if result.step == step)


def _forget(store: Store, name: str) -> str:
    """Remember a run no longer; the key of its ranks, which in these tests no other run uses."""
    run, key = find(store, name), _key(store, name, "rank")
    (store.root / "runs" / f"{run.id}.json").unlink()
    return key


def _keys(store: Store) -> set[str]:
    return {folder.name for folder in (store.root / "results").iterdir()}


def _aged(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_ls_names_every_result_with_its_size_and_users(store: Store, command: Command) -> None:
    said = command("store", "ls")
    rows = {line.split()[0]: line.split() for line in said.out.splitlines()[1:-1]}
    assert set(rows) == {key[:12] for key in _keys(store)}
    assert rows[_key(store, "good", "prepare")[:12]][1:3] == ["prepare", "toy_steps.py:Prepare"]
    assert [rows[_key(store, name, step)[:12]][-1] for name, step in (("good", "floors"), ("poor", "rank"))] == [
        "3",
        "1",
    ]
    total = sum(file.stat().st_size for file in (store.root / "results").rglob("*") if file.is_file())
    assert f"{len(rows)} results, {total / 1000:,.1f} kB; 0 unused, 0 bytes" in said.out
    _forget(store, "poor")
    assert "; 1 unused, " in command("store", "ls").out


def test_why_tells_what_a_result_came_from_and_who_uses_it(store: Store, command: Command) -> None:
    key, run = _key(store, "poor", "rank"), find(store, "poor")
    said = command("store", "why", key[:8])
    assert said.code == 0, said.err
    words = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line.split()}
    assert words["result"] == [key]
    assert words["mean"] == ["120.0"]
    assert words["used"] == ["by", run.id, "(poor)"]
    assert "python" in words["versions"]
    assert f"corpus: prepare {_key(store, 'poor', 'prepare')[:12]}" in said.out
    assert (
        f"most similar to {_key(store, 'leaky', 'rank')[:12]}, from which it differs by mean: 4.0 → 120.0" in said.out
    )


def test_a_dry_run_says_what_it_would_delete_and_changes_nothing(store: Store, command: Command) -> None:
    key = _forget(store, "poor")
    before = {path for path in store.root.rglob("*")}
    said = command("store", "gc", "--all")
    assert said.code == 0, said.err
    assert key[:12] in said.out
    size = sum(file.stat().st_size for file in store.folder(key).rglob("*") if file.is_file())
    assert f"would free {size / 1000:.1f} kB; nothing was deleted" in said.out
    assert {path for path in store.root.rglob("*")} == before


def test_what_remembered_runs_use_stays_and_still_loads(store: Store, command: Command) -> None:
    kept, key = _keys(store), _forget(store, "poor")
    said = command("store", "gc", "--all", "--yes")
    assert said.code == 0, said.err
    assert _keys(store) == kept - {key}
    assert "deleted 1 folder, freed" in said.out
    assert all(ranks_of(run, store) for run in history(store))
    assert list((store.root / "trash").iterdir()) == []
    assert command("run", "poor.toml").code == 0
    assert _keys(store) == kept


def test_unused_results_of_less_than_a_day_stay_for_they_may_be_of_a_run_in_progress(
    store: Store, command: Command
) -> None:
    key = _forget(store, "poor")
    assert command("store", "gc", "--yes").out.count("unused, but young") == 1
    assert store.has(key)
    _aged(store.folder(key), days=1.1)
    command("store", "gc", "--older-than", "2", "--yes")
    assert store.has(key)
    command("store", "gc", "--yes")
    assert not store.has(key)


def test_what_a_young_result_was_made_from_stays_with_it(store: Store, command: Command) -> None:
    for name in ("good", "poor", "leaky"):
        _forget(store, name)
    young = {
        folder for folder in _keys(store) if '"step": "rank"' in (store.folder(folder) / "manifest.json").read_text()
    }
    for key in _keys(store) - young:
        _aged(store.folder(key), days=3)
    (prepare,) = [
        key for key in _keys(store) if '"step": "prepare"' in (store.folder(key) / "manifest.json").read_text()
    ]
    said = command("store", "gc", "--yes")
    assert "kept 1 result: what others that stay were made from" in said.out
    assert _keys(store) == {*young, prepare}


def test_forgetting_a_run_frees_its_results_at_once(store: Store, command: Command) -> None:
    key, run = _key(store, "poor", "rank"), find(store, "poor")
    said = command("store", "gc", "--forget", "poor")
    assert f"forgets run {run.id} (poor)" in said.out
    assert find(store, "poor") == run
    command("store", "gc", "--forget", run.id[:6], "--yes")
    assert not store.has(key)
    assert {each.name for each in history(store)} == {"good", "leaky"}


def test_only_the_newest_runs_are_kept(store: Store, command: Command) -> None:
    newest = history(store)[0]
    assert command("store", "gc", "--keep-last", "1", "--yes").code == 0
    assert [run.id for run in history(store)] == [newest.id]
    assert _keys(store) == {result.key for seed in newest.results for result in seed}


def test_a_locked_result_is_never_deleted_and_a_running_process_keeps_the_others(
    store: Store, command: Command
) -> None:
    locked, free = _forget(store, "poor"), _forget(store, "leaky")
    for key in (locked, free):
        _aged(store.folder(key), days=9)
    with _computing(store, locked):
        said = command("store", "gc", "--yes")
        assert "kept 1 result: locked by a process" in said.out
        assert "unused, but a process is computing in this store" in said.out
        assert store.has(locked) and store.has(free)
        command("store", "gc", "--all", "--yes")
        assert store.has(locked) and not store.has(free)
    command("store", "gc", "--yes")
    assert not store.has(locked)


def test_a_lock_that_is_taken_between_finding_and_deleting_wins(store: Store) -> None:
    key = _forget(store, "poor")
    garbage = find_garbage(store, now=time.time(), everything=True)
    assert [piece.key for piece in garbage.pieces] == [key]
    with _computing(store, key):
        assert delete(store, garbage) == ()
    assert store.has(key)


def test_a_run_that_is_remembered_between_finding_and_deleting_keeps_its_results(
    store: Store, command: Command
) -> None:
    key = _forget(store, "poor")
    garbage = find_garbage(store, now=time.time(), everything=True)
    command("run", "poor.toml")
    assert delete(store, garbage) == ()
    assert store.has(key)


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(store: Store, command: Command) -> None:
    dead, alive = "d" * 32, "a" * 32
    for key in (dead, alive):
        (store.scratch(key) / "checkpoint.bin").write_bytes(bytes(100))
        (store.root / "drafts" / f"{key}.01234567").mkdir(parents=True)
    (store.root / "results" / ("b" * 32)).mkdir()
    (store.root / "trash" / "old.01234567").mkdir(parents=True)
    with _computing(store, alive):
        said = command("store", "gc")
        assert "1 draft" in said.out and "2 remains" in said.out and "checkpoint" not in said.out
        command("store", "gc", "--yes")
        assert [folder.name for folder in (store.root / "drafts").iterdir()] == [f"{alive}.01234567"]
        assert not (store.root / "results" / ("b" * 32)).exists()
        assert list((store.root / "trash").iterdir()) == []
        # The step can still go on from its checkpoint.
        assert (store.root / "partial" / dead).is_dir()
        for key in (dead, alive):
            _aged(store.root / "partial" / key, days=2)
        command("store", "gc", "--yes")
        assert not (store.root / "partial" / dead).exists()
        assert (store.root / "partial" / alive / "checkpoint.bin").is_file()


def test_a_damaged_result_is_listed_and_collected_when_nobody_uses_it(store: Store, command: Command) -> None:
    key = _forget(store, "poor")
    (store.folder(key) / "manifest.json").write_text("{", encoding="utf-8")
    assert "damaged" in next(line for line in command("store", "ls").out.splitlines() if line.startswith(key[:12]))
    refused(command("store", "why", key), "manifest.json cannot be read")
    command("store", "gc", "--all", "--yes")
    assert not store.folder(key).exists()


@pytest.mark.slow
def test_what_a_suite_computed_is_remembered_and_stays(command: Command, tmp_path: Path) -> None:
    write_recipes(tmp_path)
    good = tmp_path / "good.toml"
    text = good.read_text(encoding="utf-8").replace("mean = 4", "mean = 4, like_floors = true")
    good.write_text(text.replace(':Counted"', ':Counted", like_floors = true'), encoding="utf-8")
    suite = f"""
    methods = ["good.toml", "poor.toml"]
    seeds = [1]
    data.toys = {{ use = "{TOYS}:Prepare", users = 200 }}
    """
    (tmp_path / "shop.toml").write_text(suite, encoding="utf-8")
    command("bench", "shop.toml")
    assert command("bench", "shop.toml", "--set", "seeds=[1, 2]").code == 0
    store = Store(STORE)
    runs = {run.name: run for run in history(store)}
    assert sorted(run.name for run in history(store)) == sorted(runs)
    assert (runs["good"].part_of, runs["good"].seeds) == ("bench shop", (1, 2))
    before = _keys(store)
    command("store", "gc", "--all", "--yes")
    assert _keys(store) == before
    said = command("compare", "good", "poor")
    assert "good beats poor on NDCG@10" in _flat(said.out)


def test_mistakes_are_one_line(store: Store, command: Command) -> None:
    refused(command("store", "ls", "--store", "nowhere"), "there is no store nowhere")
    refused(command("store", "why", "zzzz"), "holds no result whose key begins with 'zzzz'")
    refused(command("store", "why", _key(store, "poor", "rank")[:3]), "at least 4 characters")
    refused(command("store", "gc", "--forget", "pour"), "remembers no run 'pour'. Did you mean 'poor'?")
    refused(command("store", "gc", "--older-than", "-1"), "--older-than")
    refused(command("store", "gc", "--all", "--older-than", "3"), "--all deletes results of any age")
