"""Keys hold everything that decides a result: the files that settings name, and the code of plug-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import Recipe, from_raw
from reaemb_bench.core.registry import build
from reaemb_bench.core.store import Store

READER = """
from pathlib import Path
from typing import Annotated
from reaemb_bench import Context, Corpus, NotHashed, Sequences, Step
import numpy as np

class Reader(Step):
    '''A step that reads files.'''
    file: Path
    '''What it reads.'''
    more: tuple[Path, ...] = ()
    '''More of it.'''
    cache: Annotated[Path, NotHashed("holds copies alone")] = Path("cache")
    '''Where it keeps copies.'''

    def run(self, context: Context) -> Corpus:
        text = self.file.read_text()
        CHANGE
        sequences = Sequences(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64))
        return Corpus(text, sequences, (), (), "", (), ())
"""


def reader(folder: Path, change: str = "pass") -> Path:
    """A plug-in whose step reads its setting `file`; `change` is done while it runs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reader.py").write_text(READER.replace("CHANGE", change), encoding="utf-8")
    return folder / "reader.py"


def recipe(plugin: Path, **settings: object) -> Recipe:
    return from_raw({"steps": ["read"], "read": {"use": f"{plugin}:Reader", **settings}}, "keys")


def key(plugin: Path, **settings: object) -> str:
    return plan(recipe(plugin, **settings), 1).jobs[0].key


def test_the_contents_of_a_file_that_a_plug_in_names_are_in_the_key(tmp_path: Path) -> None:
    plugin, file = reader(tmp_path), tmp_path / "data.txt"
    file.write_text("one", encoding="utf-8")
    before = key(plugin, file=str(file))
    file.write_text("two", encoding="utf-8")
    assert key(plugin, file=str(file)) != before
    file.write_text("one", encoding="utf-8")
    assert key(plugin, file=str(file)) == before


def test_the_same_contents_in_another_place_are_the_same(tmp_path: Path) -> None:
    plugin = reader(tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one", encoding="utf-8")
    assert key(plugin, file=f"{tmp_path}/a.txt") == key(plugin, file=f"{tmp_path}/b.txt")


@pytest.mark.parametrize("change", ["edit", "add", "rename"])
def test_each_file_of_a_folder_is_in_the_key(tmp_path: Path, change: str) -> None:
    plugin, folder = reader(tmp_path), tmp_path / "folder" / "inner"
    folder.mkdir(parents=True)
    (folder / "x").write_text("one", encoding="utf-8")
    before = key(plugin, file="absent", more=[str(folder.parent)])
    if change == "edit":
        (folder / "x").write_text("two", encoding="utf-8")
    elif change == "add":
        (folder / "y").write_text("", encoding="utf-8")
    else:
        (folder / "x").rename(folder / "z")
    assert key(plugin, file="absent", more=[str(folder.parent)]) != before


def test_a_file_that_was_changed_with_its_old_size_and_time_is_noticed(tmp_path: Path) -> None:
    import os

    plugin, file = reader(tmp_path), tmp_path / "data.txt"
    file.write_text("one", encoding="utf-8")
    before, state = key(plugin, file=str(file)), file.stat()
    file.write_text("two", encoding="utf-8")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert key(plugin, file=str(file)) != before


def test_a_path_that_is_marked_stays_text(tmp_path: Path) -> None:
    plugin, cache = reader(tmp_path), tmp_path / "cache"
    before = key(plugin, file="absent", cache=str(cache))
    cache.mkdir()
    (cache / "copy").write_text("x", encoding="utf-8")
    assert key(plugin, file="absent", cache=str(cache)) == before


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    file = tmp_path / "data.txt"
    file.write_text("one", encoding="utf-8")
    monkeypatch.setattr("reaemb_bench.core.files.cached_sha256", denied)
    with pytest.raises(UserError, match=r"data\.txt cannot be read \(Permission denied\)"):
        build("step", {"use": f"{reader(tmp_path)}:Reader", "file": str(file)}).identity()


def test_a_file_that_changes_between_plan_and_run_is_refused_by_name(tmp_path: Path) -> None:
    plugin, file, store = reader(tmp_path), tmp_path / "data.txt", Store(tmp_path / "store")
    file.write_text("one", encoding="utf-8")
    planned = plan(recipe(plugin, file=str(file)), 1)
    file.write_text("two", encoding="utf-8")
    with pytest.raises(UserError, match=r"step 'read': file \(.*data\.txt\) was changed after this run was planned"):
        execute(planned, store, Machine(device="cpu"), lambda event: None)
    assert not store.has(planned.jobs[0].key)


def test_a_file_that_changes_while_its_step_runs_is_refused_before_the_result_is_kept(tmp_path: Path) -> None:
    plugin = reader(tmp_path, "self.file.write_text('two')")
    file, store = tmp_path / "data.txt", Store(tmp_path / "store")
    file.write_text("one", encoding="utf-8")
    planned = plan(recipe(plugin, file=str(file)), 1)
    with pytest.raises(UserError, match=r"file \(.*data\.txt\) was changed"):
        execute(planned, store, Machine(device="cpu"), lambda event: None)
    assert not store.has(planned.jobs[0].key)


OPENER = """
from pathlib import Path
from reaemb_bench import Context, Corpus, Encoder, Sequences, Step
import numpy as np

class Make(Step):
    '''Weights that stay where they are.'''
    weights: Path
    '''Their file.'''

    def run(self, context: Context) -> Encoder:
        return Encoder(context.scratch)

class Open(Step):
    '''Reads them.'''
    def run(self, encoder: Encoder) -> Corpus:
        CHANGE
        sequences = Sequences(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64))
        return Corpus("", sequences, (), (), "", (), ())
"""


@pytest.mark.parametrize("inside", [True, False])
def test_weights_that_change_before_a_later_step_opens_them_are_refused(tmp_path: Path, inside: bool) -> None:
    weights, store = tmp_path / "weights", Store(tmp_path / "store")
    change = f"Path({str(weights)!r}).write_text('two')" if inside else "pass"
    (tmp_path / "opener.py").write_text(OPENER.replace("CHANGE", change), encoding="utf-8")
    weights.write_text("one", encoding="utf-8")
    tables = {"make": {"use": f"{tmp_path}/opener.py:Make", "weights": str(weights)}}
    opening = {**tables, "open": {"use": f"{tmp_path}/opener.py:Open"}}
    made = plan(from_raw({"steps": ["make"], **tables}, "weights"), 1)
    execute(made, store, Machine(device="cpu"), lambda event: None)
    planned = plan(from_raw({"steps": ["make", "open"], **opening}, "weights"), 1)
    assert planned.jobs[0].key == made.jobs[0].key
    if not inside:
        weights.write_text("two", encoding="utf-8")
    with pytest.raises(UserError, match=r"step 'make': weights \(.*weights\) was changed"):
        execute(planned, store, Machine(device="cpu"), lambda event: None)
    assert not store.has(planned.jobs[1].key)
