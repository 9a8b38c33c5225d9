"""Any damage to a store is noticed: the result is computed again or refused by name, and never used."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.store import MANIFEST
from tests.faults.dying import At
from tests.faults.forks import Case, Forks
from tests.faults.outcomes import Tally
from tests.faults.test_crash import SECONDS, as_if_undisturbed, refused
from tests.faults.tiny import Whole, results_of, table_of

Record = Callable[[str, object], None]

_HARMS = ("flip", "cut", "empty", "delete", "replace")
_DELETE = re.compile(r"delete (?:the folder )?(store/[^\s,;]+)")
_ENDS = ("tick lrcl steps 3", "tick crrl steps 3", "os.mkdir drafts/")


def _harm(draw: np.random.Generator, file: Path, others: list[Path]) -> str:
    """Do to the file what its name says; `replace` puts another file of the store, or other JSON, in its place."""
    harm = str(draw.choice(_HARMS))
    content = bytearray(file.read_bytes())
    if harm == "flip" and content:
        content[draw.integers(len(content))] ^= 1 << draw.integers(8)
        file.write_bytes(content)
    elif harm == "cut" and content:
        file.write_bytes(content[: draw.integers(len(content))])
    elif harm == "delete":
        file.unlink()
    elif harm == "replace":
        same = (other for other in others if other.suffix == file.suffix and other != file)
        alike = [other.read_bytes() for other in same if other.is_file()]
        odd = [b"{}", b"[]", b"5", b"[" * 100_000, b"\xff\xfe", bytes(len(content))]
        choices = [other for other in (*alike, *odd) if other != content]
        file.write_bytes(choices[draw.integers(len(choices))])
    else:
        file.write_bytes(b"")
    return harm


def _downstream(whole: Whole, key: str) -> list[str]:
    """Keys of all results that were computed from a result, at any depth."""
    children = [
        other
        for other, manifest in whole.results.items()
        if any(text.startswith(key) for text in manifest["identity"]["inputs"].values())
    ]
    return [*children, *(deeper for child in children for deeper in _downstream(whole, child))]


def _cured(forks: Forks, folder: Path, whole: Whole, line: str) -> None:
    """What the line says to do helps: afterwards the run is as if undisturbed."""
    named = _DELETE.search(line)
    if named:
        path = folder / named[1]
        assert path.exists(), line
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        assert "run again" in line or "run it again" in line
    (answer,) = forks.run(Case(whole.words, str(folder)))
    assert answer.code == 0, answer.err
    assert table_of(answer.out) == whole.table or not _all_there(folder, whole)
    _as_in(whole, results_of(folder / "store"))


def _as_in(whole: Whole, results: dict[str, dict[str, Any]]) -> None:
    """What is found of the undisturbed results is what they are."""
    assert {key: results[key] for key in whole.results if key in results} == {
        key: manifest for key, manifest in whole.results.items() if key in results
    }


def _all_there(folder: Path, whole: Whole) -> bool:
    """Whether no result is missing: tables leave out, or name otherwise, what is no longer there."""
    return all((folder / "store" / "results" / key / MANIFEST).is_file() for key in whole.results)


def _copy(store: Path, folder: Path) -> list[Path]:
    shutil.copytree(store, folder / "store")
    return sorted(path for path in (folder / "store").rglob("*") if path.is_file() and path.suffix != ".lock")


def _names_it(line: str, file: Path, key: str) -> bool:
    """Whether a line names the damaged file, its folder, or the run whose record it is."""
    return file.name in line or (key in line) or file.stem in line


@dataclass(frozen=True)
class Pair:
    """A store with the undisturbed run and a second one, the command line that compares them, and what it says."""

    root: Path
    words: tuple[str, ...]
    out: str


@pytest.fixture(scope="session")
def pair(forks: Forks, whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The undisturbed run and a shorter one."""
    folder = tmp_path_factory.mktemp("pair")
    _copy(whole.root, folder)
    (second,) = forks.run(Case((*whole.words, "--set", "train.epochs=1"), str(folder)))
    assert second.code == 0, second.err
    ids = sorted(file.stem for file in (folder / "store" / "runs").glob("*.json"))
    words = ("compare", *ids, "--store", "store")
    (answer,) = forks.run(Case(words, str(folder)))
    assert answer.code == 0, answer.err
    return Pair(folder / "store", words, answer.out)


@pytest.mark.slow
@pytest.mark.parametrize("count", [12, pytest.param(150, marks=pytest.mark.faults)])
def test_damage_to_a_finished_store_is_never_used(
    count: int, forks: Forks, whole: Whole, pair: Pair, tmp_path: Path, record_property: Record
) -> None:
    tally = Tally("damage to finished stores", SECONDS)

    def damaged(seed: int) -> None:
        draw = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        files = _copy(pair.root, folder)
        results = [file for file in files if file.relative_to(folder / "store").parts[1] in whole.results]
        records = [file for file in files if file.parent.name == "runs"]
        manifests = [file for file in results if file.name == MANIFEST]
        kind = draw.choice(["any", "manifest", "record"], p=[0.6, 0.3, 0.1])
        of_kind = {"any": results, "manifest": manifests, "record": records}[str(kind)]
        file = of_kind[draw.integers(len(of_kind))]
        key = file.relative_to(folder / "store").parts[1]
        if draw.random() < 0.5:
            # So that it has to be read.
            for below in _downstream(whole, key):
                shutil.rmtree(folder / "store" / "results" / below, ignore_errors=True)
        _harm(draw, file, files)
        _read_by_others(forks, folder, whole, pair, file, key)
        (answer,) = forks.run(Case(whole.words, str(folder)))
        if answer.code == 0:
            assert table_of(answer.out) == whole.table or not _all_there(folder, whole)
            # The damaged result itself was not read, or what was computed from it tells of it.
            _as_in(whole, results_of(folder / "store", {key}))
            shutil.rmtree(folder)
            return
        line = refused(answer)
        assert _names_it(line, file, key), line
        _cured(forks, folder, whole, line)
        shutil.rmtree(folder)
        raise UserError(line)

    for seed in range(count):
        tally.attempt(f"seed {seed}", lambda seed=seed: damaged(seed))  # type: ignore[misc]
    tally.settle(record_property)


def _read_by_others(forks: Forks, folder: Path, whole: Whole, pair: Pair, file: Path, key: str) -> None:
    """Verbs that only read either say what they said of the undisturbed store, or what is damaged or missing."""
    comparison, history, listing = forks.run(
        Case(pair.words, str(folder)),
        Case(("history", "--store", "store"), str(folder)),
        Case(("store", "ls", "--store", "store"), str(folder)),
    )
    if comparison.code == 0:
        assert comparison.out == pair.out or not _all_there(folder, whole)
    else:
        assert "run" in refused(comparison)
    for answer in (history, listing):
        assert answer.code == 0 or _names_it(refused(answer), file, key)


@pytest.fixture(scope="session")
def interrupted(forks: Forks, whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Stores of runs that were killed in the middle of a step, with what they kept to go on from."""
    stores = []
    for begins in _ENDS:
        folder = tmp_path_factory.mktemp("interrupted")
        at = At(begins=begins)
        if begins.startswith("os.mkdir drafts/"):
            # Vectors are whole in the scratch folder, but not a result yet.
            steps = [number for number, name in enumerate(whole.places, 1) if name.startswith(begins)]
            first = next(n for n, name in enumerate(whole.places, 1) if name.startswith("tick encode"))
            at = At(next(number for number in steps if number > first))
        (died,) = forks.run(Case(whole.words, str(folder), at=at))
        assert died.code == -9, died.err
        assert any(path.is_file() for path in (folder / "store" / "partial").rglob("*"))
        stores.append(folder / "store")
    return stores


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, pytest.param(50, marks=pytest.mark.faults)])
def test_damage_to_unfinished_work_is_never_used(
    count: int, forks: Forks, whole: Whole, interrupted: list[Path], tmp_path: Path, record_property: Record
) -> None:
    tally = Tally("damage to unfinished work", SECONDS, refuses=False)

    def damaged(seed: int) -> None:
        draw = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        files = _copy(interrupted[seed % len(interrupted)], folder)
        unfinished = [file for file in files if file.relative_to(folder / "store").parts[0] == "partial"]
        newest = sorted(unfinished, reverse=True)[: 1 + int(draw.integers(len(unfinished)))]
        for file in newest:
            _harm(draw, file, files)
        (answer,) = forks.run(Case(whole.words, str(folder)))
        as_if_undisturbed(answer, folder, whole)
        shutil.rmtree(folder)

    for seed in range(count):
        tally.attempt(f"seed {seed}", lambda seed=seed: damaged(seed))  # type: ignore[misc]
    tally.settle(record_property)
