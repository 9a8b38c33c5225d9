"""A run that dies, or that the disk fails, goes on where it was and ends with the bits of one that nobody disturbed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Said
from tests.faults.dying import At, Does
from tests.faults.forks import Answer, Case, Forks
from tests.faults.outcomes import Tally
from tests.faults.tiny import Whole, leftovers, records_of, results_of, table_of

Record = Callable[[str, object], None]

SECONDS = 200.0
_WRITES = ("fsync", "write_text", "save_file", "write_parquet")
_HOUR = 3600.0


def as_if_undisturbed(answer: Answer, folder: Path, whole: Whole) -> None:
    """The run ended well, and its results, record and table are those of the undisturbed one; nothing else is left."""
    root = folder / "store"
    assert answer.code == 0, answer.err
    assert results_of(root) == whole.results
    assert records_of(root) == whole.records
    assert table_of(answer.out) == whole.table
    assert leftovers(root) == []


def refused(answer: Answer) -> str:
    """The one line of a run that ended with code 2, as the command line's own process would show it."""
    assert answer.code == 2, f"{answer.code}: {answer.err}"
    assert answer.err.startswith("error: ")
    assert len(answer.err.splitlines()) == 1
    return answer.err


def _place(draw: np.random.Generator, places: tuple[str, ...]) -> At:
    """A tick, a file that is being written, or any other change of files: a third of the draws each."""
    kind = draw.integers(3)
    ticks = [number for number, name in enumerate(places, 1) if name.startswith("tick ")]
    writes = [number for number, name in enumerate(places, 1) if name.startswith(_WRITES)]
    numbers = (ticks, writes, range(1, len(places) + 1))[kind]
    does: Does = "die soon" if kind == 0 and draw.random() < 0.7 else "die"
    return At(int(draw.choice(np.array(numbers))), does=does, share=float(draw.random()))


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.faults)])
def test_a_run_killed_anywhere_ends_with_the_bits_of_an_undisturbed_one(
    count: int, forks: Forks, whole: Whole, tmp_path: Path, record_property: Record
) -> None:
    tally = Tally("kills of a whole run", SECONDS, refuses=False)

    def killed(seed: int) -> None:
        draw = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for _ in range(1 + int(draw.random() < 0.3)):
            (died,) = forks.run(Case(whole.words, str(folder), at=_place(draw, whole.places)))
            # A step that is cached the second time cannot be killed.
            assert died.code == -signal.SIGKILL or died.places, died.err
        (answer,) = forks.run(Case(whole.words, str(folder)))
        as_if_undisturbed(answer, folder, whole)
        shutil.rmtree(folder)

    for seed in range(count):
        tally.attempt(f"seed {seed}", lambda seed=seed: killed(seed))  # type: ignore[misc]
    tally.settle(record_property)


def _mounted(folder: Path, *options: str) -> None:
    """Mount something on `folder`, or skip the test."""
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only the superuser of Linux can mount a disk")
    done = subprocess.run([mount, *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is refused here: {done.stderr.strip()}")


@contextmanager
def _disk(folder: Path, *options: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    _mounted(folder, *options)
    try:
        yield
    finally:
        subprocess.run([str(shutil.which("umount")), "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(10, marks=pytest.mark.faults)])
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    count: int, forks: Forks, whole: Whole, tmp_path: Path, record_property: Record
) -> None:
    tally = Tally("full disks", SECONDS, refuses=False)

    def filled(kilobytes: int, folder: Path) -> None:
        store = folder / "store"
        with _disk(store, "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs"):
            (answer,) = forks.run(Case(whole.words, str(folder)))
            assert "to the store store (No space left on device); make room there" in refused(answer)
            assert list((store / "drafts").glob("*")) == []
            _mounted(store, "-o", "remount,size=64m")
            (answer,) = forks.run(Case(whole.words, str(folder)))
            as_if_undisturbed(answer, folder, whole)

    for number, kilobytes in enumerate(np.linspace(400, 3000, count).astype(int).tolist()):
        tally.attempt(f"{kilobytes} kB", lambda k=kilobytes, n=number: filled(k, tmp_path / str(n)))  # type: ignore[misc]
    tally.settle(record_property)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(10, marks=pytest.mark.faults)])
def test_a_limit_of_file_sizes_is_one_line_and_the_run_goes_on_without_it(
    count: int, forks: Forks, whole: Whole, tmp_path: Path, record_property: Record
) -> None:
    tally = Tally("limits of file sizes", SECONDS, refuses=False)

    def limited(largest: int, folder: Path) -> None:
        folder.mkdir()
        (answer,) = forks.run(Case(whole.words, str(folder), largest=largest))
        assert "to the store store (File too large); make room there" in refused(answer)
        (answer,) = forks.run(Case(whole.words, str(folder)))
        as_if_undisturbed(answer, folder, whole)

    for number, largest in enumerate(np.geomspace(1_500, 450_000, count).astype(int).tolist()):
        tally.attempt(f"{largest} bytes", lambda b=largest, n=number: limited(b, tmp_path / str(n)))  # type: ignore[misc]
    tally.settle(record_property)


@pytest.mark.slow
def test_a_store_that_can_only_be_read_is_one_line_and_its_runs_can_be_read(
    forks: Forks, whole: Whole, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    with _disk(store, "--bind", str(whole.root)):
        _mounted(store, "-o", "remount,ro,bind")
        words = (*whole.words, "--set", "train.epochs=1")
        (answer,) = forks.run(Case(words, str(tmp_path)))
        assert "(Read-only file system); make room there or choose another with --store" in refused(answer)
        (answer,) = forks.run(Case(("history", "--store", "store"), str(tmp_path)))
        assert answer.code == 0
        assert "tiny" in answer.out


def test_a_store_below_a_file_is_one_line(command: Callable[..., Said], toy_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    said = command("run", toy_recipe, "--store", tmp_path / "file" / "store")
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    assert "choose another with --store" in said.err


_LOSSES = ("tick lrcl", "tick crrl steps", "open partial/", "os.rename drafts/", "write_text drafts/", "tick train")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(len(_LOSSES), marks=pytest.mark.faults)])
def test_a_store_that_is_deleted_meanwhile_is_one_line_and_the_run_begins_anew(
    count: int, forks: Forks, whole: Whole, tmp_path: Path, record_property: Record
) -> None:
    tally = Tally("stores deleted in the middle", SECONDS, refuses=False)

    def lost(begins: str, folder: Path) -> None:
        folder.mkdir()
        (answer,) = forks.run(Case(whole.words, str(folder), at=At(begins=begins, does="lose the store")))
        assert re.search("run again|make room there or choose another", refused(answer))
        (answer,) = forks.run(Case(whole.words, str(folder)))
        assert answer.code == 0, answer.err
        assert table_of(answer.out) == whole.table
        # What was finished after the loss is there already, so that what it was made from need not be computed.
        results = results_of(folder / "store")
        assert results == {key: manifest for key, manifest in whole.results.items() if key in results}

    for number, begins in enumerate(_LOSSES[:count]):
        tally.attempt(begins, lambda b=begins, n=number: lost(b, tmp_path / str(n)))  # type: ignore[misc]
    tally.settle(record_property)


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(forks: Forks, whole: Whole, tmp_path: Path) -> None:
    (answer,) = forks.run(Case(whole.words, str(tmp_path), clock=_HOUR))
    as_if_undisturbed(answer, tmp_path, whole)
    for number, path in enumerate(sorted((tmp_path / "store").rglob("*"))):
        os.utime(path, (0, 0) if number % 2 else (2.0**33, 2.0**33))
    (answer,) = forks.run(Case(whole.words, str(tmp_path)))
    as_if_undisturbed(answer, tmp_path, whole)
    for verb in (("store", "ls"), ("store", "gc"), ("history",)):
        (answer,) = forks.run(Case((*verb, "--store", "store"), str(tmp_path), clock=_HOUR))
        assert answer.code == 0, answer.err
