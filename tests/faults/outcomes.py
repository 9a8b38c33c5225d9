"""What became of each mutated input: it survived, it was refused in one line that helps, or it was lost."""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import pytest

from reaemb_bench.cli.screen import in_words
from reaemb_bench.core.errors import UserError

SECONDS = 120
"""Limit of one case: generous, because the first imports torch, maybe on a busy machine."""
_LONGEST_LINE = 2_500
_SHOWN = 20
_CURES = re.compile(
    r"(?i)\b(add|break|check|choose|correct|declare|delete|derive|did you mean|drop|exchange|fetch|give|known|loosen|"
    r"lower|make it|must|name|needs|raise|relative to|"
    r"remove|rename|required|run again|run it again|save|say|set|shorten|should|take|takes|use|valid|write)\b"
)


class _TooLong(BaseException):
    """No case may catch it."""


@dataclass
class Tally:
    """Counts the outcomes of one kind of input. seconds: limit of a case. refuses: whether any is to be refused."""

    what: str
    seconds: float = SECONDS
    refuses: bool = True
    survived: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)

    def attempt(self, label: str, action: Callable[[], None]) -> None:
        """Run one case; an exception other than UserError, no cure in its line, or a hang counts as lost."""
        try:
            with _limited(self.seconds):
                action()
        except UserError as error:
            if fault := _fault(in_words(error)):
                self.lost.append(f"{label}: {fault}: {error}")
            else:
                self.refused += 1
        except (pytest.fail.Exception, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of a library is not an Exception
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self.lost.append(f"{label}: {type(error).__name__}: {str(error)[:300]} ({frame.filename}:{frame.lineno})")
        else:
            self.survived += 1

    def settle(self, record: Callable[[str, object], None]) -> None:
        """Record the counts for the summary below the tests; fails where a case was lost."""
        tried = self.survived + self.refused + len(self.lost)
        counts = f"{tried} tried, {self.survived} survived, {self.refused} refused, {len(self.lost)} lost"
        record("faults", f"{self.what}: {counts}")
        assert not self.lost, "\n".join([f"{len(self.lost)} lost:", *self.lost[:_SHOWN]])
        assert self.survived, "nothing survived: the mutations break everything before they reach the product"
        assert self.refused or not self.refuses, "nothing was refused: the mutations break nothing"


def _fault(line: str) -> str:
    if len(line) > _LONGEST_LINE:
        return "the line is endless"
    if not line.strip() or len(line.splitlines()) != 1:
        return "not one line"
    return "" if _CURES.search(line) else "no cure"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
