"""Eight processes on one store: each result is computed once, and a dead process blocks no other."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TOYS
from tests.faults.dying import At
from tests.faults.forks import Case, Forks
from tests.faults.outcomes import Tally
from tests.faults.test_crash import SECONDS
from tests.faults.tiny import Whole, leftovers, results_of

SLOW = Path(__file__).parent / "slow_steps.py"
RATES = (0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.8, 0.9)
"""Of the eight processes; the last two, of which nobody else computes the end, are killed."""
DEATHS = {0.8: At(begins="tick train"), 0.9: At(begins="os.mkdir drafts/")}


def _toys(folder: Path, rate: float) -> tuple[str, ...]:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    file = folder / f"toys-{rate}.toml"
    file.write_text(
        f"""
title = "Toys"
steps = ["prepare", "embed", "train", "rank"]
prepare = {{ use = '{TOYS}:Prepare', log = '{logs}/prepare' }}
embed = {{ use = '{SLOW}:Embed', log = '{logs}/embed' }}
train = {{ use = '{SLOW}:Fit', rate = {rate}, log = '{logs}/train-{rate}' }}
rank = {{ use = '{TOYS}:Judge' }}
""",
        encoding="utf-8",
    )
    return ("run", str(file), "--store", "store")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.faults)])
def test_eight_processes_compute_each_result_once_and_two_of_them_die(
    count: int, forks: Forks, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tally = Tally("eight processes on one store, two killed", SECONDS, refuses=False)

    def together(folder: Path) -> None:
        folder.mkdir()
        cases = [Case(_toys(folder, rate), str(folder), at=DEATHS.get(rate)) for rate in RATES]
        answers = forks.run(*cases)
        assert [answer.code for answer in answers] == [0] * 6 + [-9] * 2, [answer.err for answer in answers]
        begun = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in (folder / "logs").iterdir()}
        survivors = {f"train-{rate}" for rate in RATES if rate not in DEATHS}
        assert {name: begun[name] for name in survivors} == dict.fromkeys(survivors, 1)
        for rate in DEATHS:
            (answer,) = forks.run(Case(_toys(folder, rate), str(folder)))
            assert answer.code == 0, answer.err
        lines = [line for file in (folder / "logs").iterdir() for line in file.read_text(encoding="utf-8").splitlines()]
        # Each of prepare, embed and five trainings once, and once more what a process was at when it died.
        assert len(lines) == 2 + len(set(RATES)) + len(DEATHS)
        assert leftovers(folder / "store") == []
        at_once = results_of(folder / "store")
        shutil.rmtree(folder / "store")
        for rate in sorted(set(RATES)):
            (answer,) = forks.run(Case(_toys(folder, rate), str(folder)))
            assert answer.code == 0, answer.err
        assert results_of(folder / "store") == at_once

    for number in range(count):
        tally.attempt(f"round {number}", lambda n=number: together(tmp_path / str(n)))  # type: ignore[misc]
    tally.settle(record_property)


@pytest.mark.faults
def test_eight_whole_roads_share_what_they_have_in_common(
    forks: Forks, whole: Whole, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tally = Tally("eight whole roads on one store, two killed", SECONDS * 2, refuses=False)

    def together() -> None:
        words = [(*whole.words, "--set", f"train.learning_rate={rate}") for rate in (1e-2, 1e-2, 2e-2, 2e-2, 3e-2)]
        deaths = [At(begins="tick lrcl steps 2"), At(begins="os.mkdir drafts/")]
        cases = [Case(command, str(tmp_path)) for command in (whole.words, *words)]
        dying = [(*whole.words, "--set", f"train.learning_rate={rate}") for rate in (4e-2, 5e-2)]
        cases += [Case(command, str(tmp_path), at=at) for command, at in zip(dying, deaths, strict=True)]
        answers = forks.run(*cases)
        assert [answer.code for answer in answers[:6]] == [0] * 6, [answer.err for answer in answers]
        assert -9 in [answer.code for answer in answers[6:]]
        for command in dying:
            (answer,) = forks.run(Case(command, str(tmp_path)))
            assert answer.code == 0, answer.err
        results = results_of(tmp_path / "store")
        assert {key: results[key] for key in whole.results} == whole.results
        # Prepare to reduce and the floors are shared; train and rank are six, one a learning rate.
        assert Counter(result["step"] for result in results.values()) == Counter(
            {name: 6 if name in ("train", "rank") else 1 for name in {result["step"] for result in results.values()}}
        )
        assert leftovers(tmp_path / "store") == []

    tally.attempt("one round", together)
    tally.settle(record_property)
