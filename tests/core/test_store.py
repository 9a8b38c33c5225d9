"""The store: whole results or none, damage is noticed, locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import Timeout

from reaemb_bench.core.artifacts import Ranker
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import write_atomically
from reaemb_bench.core.inventory import find_garbage, inventory
from reaemb_bench.core.store import MANIFEST, PROGRESS_FILE, Store, save_checksummed

KEY = "0123456789abcdef"


def _put(store: Store) -> None:
    with store.writing(KEY) as draft:
        (draft / "thing").mkdir()
        (draft / "thing" / "a.json").write_text("[1, 2, 3]", encoding="utf-8")
        (draft / "thing" / "b.bin").write_bytes(bytes(range(256)))
        (draft / PROGRESS_FILE).write_text('{"done": 1, "loss": 0.5}\n', encoding="utf-8")
        save_checksummed(draft, {"step": "x", "seconds": 1.0})


def test_what_was_written_is_there_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.has(KEY)
    _put(store)
    assert store.has(KEY)
    assert (store.verify(KEY, "thing") / "a.json").read_text(encoding="utf-8") == "[1, 2, 3]"
    assert store.progress(KEY) == [{"done": 1, "loss": 0.5}]
    assert set(store.manifest(KEY)["files"]) == {"thing/a.json", "thing/b.bin", PROGRESS_FILE}
    assert list((tmp_path / "drafts").iterdir()) == []


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.writing(KEY) as draft:
        (draft / "half").write_text("x", encoding="utf-8")
        raise RuntimeError
    assert not store.has(KEY)
    assert not store.folder(KEY).exists()
    assert list((tmp_path / "drafts").iterdir()) == []


def test_a_killed_process_leaves_nothing_under_the_key_and_no_lock(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from reaemb_bench.core.store import Store, save_checksummed\n"
        f"store = Store(Path(sys.argv[1])); lock = store.lock('{KEY}'); lock.acquire()\n"
        f"with store.writing('{KEY}') as draft:\n"
        "    (draft / 'thing').mkdir(); save_checksummed(draft, {}); os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -9
    store = Store(tmp_path)
    assert not store.has(KEY)
    with store.lock(KEY).acquire(timeout=0):
        _put(store)
    assert store.has(KEY)


@pytest.mark.parametrize("name", ["thing/a.json", "thing/b.bin"])
@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_every_damaged_file_is_noticed(tmp_path: Path, name: str, damage: str) -> None:
    store = Store(tmp_path)
    _put(store)
    file = store.folder(KEY) / name
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "cut":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    with pytest.raises(UserError, match=f"{file.name} is damaged"):
        store.verify(KEY, "thing")


def test_a_damaged_curve_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _put(store)
    (store.folder(KEY) / PROGRESS_FILE).write_text('{"done": 1, "loss": 0.4}\n', encoding="utf-8")
    with pytest.raises(UserError, match="is damaged"):
        store.progress(KEY)


def test_a_cut_manifest_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _put(store)
    file = store.folder(KEY) / MANIFEST
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="cannot be read"):
        store.verify(KEY, "thing")


def test_a_key_is_locked_for_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock(KEY), pytest.raises(Timeout):
        store.lock(KEY).acquire(timeout=0.01)
    with store.lock(KEY).acquire(timeout=0):
        pass


def test_a_store_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="choose another with --store"):
        Store(tmp_path / "file" / "store").lock(KEY)


def test_an_atomic_write_replaces_whole_files_and_leaves_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.txt"
    write_atomically(file, b"old")
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


def test_results_are_readable_by_whoever_the_umask_admits(tmp_path: Path) -> None:
    store, before = Store(tmp_path), os.umask(0o022)
    try:
        with store.writing(KEY) as draft:
            Ranker({}, {"x": np.zeros(2, dtype=np.float32)}).save(draft)
            save_checksummed(draft, {})
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in store.folder(KEY).iterdir()} == dict.fromkeys(
        ("ranker.json", "ranker.safetensors", MANIFEST), 0o644
    )


def test_a_result_without_the_right_to_read_it_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(file: Path) -> str:
        raise PermissionError(13, "Permission denied")

    store = Store(tmp_path)
    _put(store)
    monkeypatch.setattr("reaemb_bench.core.files.sha256_of", denied)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); ask its owner"):
        store.verify(KEY, "thing")


def test_a_store_without_the_right_to_write_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    store = Store(tmp_path)
    with store.lock(KEY):
        _put(store)
    monkeypatch.setattr("filelock.FileLock.acquire", denied)
    monkeypatch.setattr(Path, "mkdir", lambda folder, **_: None if folder.is_dir() else denied())
    assert [stored.key for stored in inventory(store)] == [KEY]
    assert find_garbage(store, now=1e10).pieces == ()
    assert store.progress(KEY) == [{"done": 1, "loss": 0.5}]
    with pytest.raises(UserError, match="Permission denied"):
        store.discard(store.folder(KEY))


def test_who_waits_for_another_process_is_told_for_whom(tmp_path: Path) -> None:
    store, told = Store(tmp_path), []
    script = (
        "import sys, time; from pathlib import Path; from reaemb_bench.core.store import Store\n"
        f"with Store(Path(sys.argv[1])).computing_alone('{KEY}', print):\n"
        "    print('ready', flush=True); time.sleep(1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with store.computing_alone(KEY, told.append):
            assert other.wait() == 0
        assert len(told) == 1
        assert told[0].startswith(f"process {other.pid} on ")
    with store.computing_alone(KEY, told.append):
        pass
    assert len(told) == 1
