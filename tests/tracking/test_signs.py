"""Signs of life in the store, and `watch`, which follows runs by them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reaemb_bench.core.component import Progress
from reaemb_bench.core.execute import Progressed, Started
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.signs import read_signs, signalling
from tests.conftest import Said

Command = Callable[..., Said]


def sign_of(store: Store, **changed: object) -> None:
    """Writes a sign as a process on another host would have written it a minute ago."""
    steps = [
        {"name": "prepare", "state": "done", "words": "cached"},
        {"name": "train", "state": "running", "since": time.time() - 90, "done": 3, "total": 9, "unit": "epochs"},
    ]
    facts = {"host": "elsewhere", "pid": 7, "title": "Toys, seed 1", "name": "toys", "started": time.time() - 100}
    facts |= {"ended": "", "steps": steps, "written": time.time() - 60}
    facts |= changed
    file = store.root / "running" / f"{facts['host']}-{facts['pid']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts), encoding="utf-8")


def test_a_run_leaves_a_sign_of_where_it_is_and_how_it_ended(toy_recipe: Path, tmp_path: Path) -> None:
    store, planned = Store(tmp_path / "store"), plan(load(toy_recipe), 42)
    with pytest.raises(ValueError, match="no toys"), signalling(planned, store) as course:
        course(Started(planned.jobs[2]))
        course(Progressed(planned.jobs[2], Progress(1, 3, "steps", {"loss": 0.5})))
        raise ValueError("no toys")
    (sign,) = read_signs(store)
    train = sign.course.steps[2]
    assert (sign.host, sign.pid, sign.course.name) == (platform.node(), os.getpid(), planned.recipe.name)
    assert (train.state, train.done, train.values) == ("failed", 1, {"loss": 0.5})
    assert sign.course.ended == "failed: ValueError: no toys" and not sign.is_lost()
    with signalling(planned, store):
        pass
    assert [sign.course.ended for sign in read_signs(store)] == ["finished"]


def test_a_store_that_cannot_be_written_costs_no_result(toy_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with signalling(plan(load(toy_recipe), 42), Store(tmp_path / "store")):
        pass


def test_old_signs_go_and_what_is_not_a_sign_is_left_out(toy_recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    sign_of(store)
    file = store.root / "running" / "elsewhere-7.json"
    os.utime(file, (0, 0))
    (store.root / "running" / "elsewhere-8.json").write_text("{")
    with signalling(plan(load(toy_recipe), 42), store):
        pass
    assert not file.exists() and len(read_signs(store)) == 1


def test_watch_shows_where_a_run_elsewhere_is_and_how_long_it_is_silent(command: Command, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    sign_of(store)
    said = command("watch", "--store", store.root)
    assert "Toys, seed 1" in said.out and "3/9 epochs" in said.out
    assert "no sign of elsewhere-7 for 1m0" in said.out
    sign_of(store, pid=8, title="Others, seed 2", name="others", written=time.time())
    both = command("watch", "--store", store.root).out
    assert "Toys, seed 1" in both and "Others, seed 2" in both and "prepare" not in both
    one = command("watch", "others", "--store", store.root).out
    assert "Toys" not in one and "prepare" in one and "no sign" not in one
    assert command("watch", "elsewhere-7", "--store", store.root).out.startswith("Toys, seed 1")


def test_watch_knows_a_process_of_this_host_that_died(command: Command, tmp_path: Path) -> None:
    store, gone = Store(tmp_path / "store"), subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    sign_of(store, host=platform.node(), pid=gone.pid)
    said = command("watch", "--store", store.root)
    assert said.code == 1 and f"{platform.node()}-{gone.pid} is gone and did not end its run" in said.out


def test_watch_without_a_sign_says_what_to_do(command: Command, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    said = command("watch", "--store", tmp_path / "store")
    assert said.code == 2 and "has no sign of a run within a day; start one" in said.err
