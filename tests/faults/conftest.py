"""Shows how many faults were tried, survived, refused and lost; processes to be harmed, and a run to compare with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.forks import Case, Forks
from tests.faults.tiny import Whole, records_of, results_of, table_of, words_of


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = [str(value) for report in reports for name, value in report.user_properties if name == "faults"]
    if lines:
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Command lines in processes that import nothing anew."""
    process = Forks()
    yield process
    process.close()


@pytest.fixture(scope="session")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What the tiny recipe leaves behind when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("whole")
    words = words_of(folder)
    (answer,) = forks.run(Case(words, str(folder)))
    assert answer.code == 0, answer.err
    root = folder / "store"
    return Whole(root, words, answer.places, table_of(answer.out), results_of(root), records_of(root))
