"""Progress of a run on the screen: a live view of all steps on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn

from reaemb_bench.core.component import Progress
from reaemb_bench.core.execute import Event, Finished, Noted, Planned, Progressed, Started, Waiting, Watch
from reaemb_bench.core.plan import Plan
from reaemb_bench.evaluation.health import stage_signs

_SECONDS_BETWEEN_LINES = 5.0
_VALUES_SHOWN = 3
_WAITING, _RUNNING, _DONE = "[dim]·[/]", "[yellow]▶[/]", "[green]✓[/]"


@contextmanager
def watching(planned: Plan, screen: Console) -> Iterator[Watch]:
    """Gives a watcher of one plan that suits the screen; the live view ends with the block."""
    if not screen.is_terminal:
        yield Lines(planned, lambda line: say(screen, line))
        return
    view = LiveView(planned, screen)
    with view.progress:
        yield view


class Lines:
    """Plain lines: one when a step starts, one when it ends, and progress every few seconds."""

    def __init__(
        self, planned: Plan, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names = [job.name for job in planned.jobs]
        self._write, self._clock = write, clock
        self._last, self._pace = 0.0, Pace(clock)
        self._signs: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Takes one event of the pipeline."""
        if isinstance(event, Planned):
            title, seed, count = event.plan.recipe.title, event.plan.seed, len(self._names)
            for line in (f"{title}, seed {seed}: {len(event.needed)} of {count} steps to compute", *event.notes):
                self._write(line)
            return
        step = f"[{self._names.index(event.job.name) + 1}/{len(self._names)}] {event.job.name}"
        if isinstance(event, Waiting):
            self._write(f"{step}: waits for {event.owner}, which computes the same result")
        elif isinstance(event, Started):
            self._last, self._pace = self._clock(), Pace(self._clock)
            self._write(f"{step}: starts")
        elif isinstance(event, Finished):
            self._write(f"{step}: {_ended(event)}")
        elif isinstance(event, Noted):
            for sign in _new_signs(event, self._signs):
                self._write(f"{step}: {sign}")
        else:
            state = _state(event.progress, self._pace)
            if self._clock() - self._last >= _SECONDS_BETWEEN_LINES:
                self._last = self._clock()
                self._write(f"{step}: {state}")


class LiveView:
    """One line per step: mark, bar, current values, rate and time left."""

    def __init__(self, planned: Plan, screen: Console) -> None:
        mark, state = TextColumn("{task.fields[mark]} {task.description}"), TextColumn("{task.fields[state]}")
        self.progress = rich.progress.Progress(mark, BarColumn(bar_width=20), state, console=screen)
        self._tasks = {
            job.name: self.progress.add_task(escape(job.name), total=1, mark=_WAITING, state="waiting")
            for job in planned.jobs
        }
        self._pace = Pace()
        self._signs: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Takes one event of the pipeline."""
        if isinstance(event, Planned):
            for job in event.plan.jobs:
                if job.key not in event.cached | event.needed:
                    self._show(job.name, _DONE, "not needed", 1)
            for note in event.notes:
                self.progress.console.print(note, markup=False, highlight=False)
        elif isinstance(event, Waiting):
            self._show(event.job.name, _WAITING, f"waits for {event.owner}")
        elif isinstance(event, Started):
            self._pace = Pace()
            self._show(event.job.name, _RUNNING, "starting")
        elif isinstance(event, Progressed):
            progress = event.progress
            total = max(progress.total, progress.done + 1)
            self._show(event.job.name, _RUNNING, _state(progress, self._pace), progress.done, total)
        elif isinstance(event, Noted):
            for sign in _new_signs(event, self._signs):
                say(self.progress.console, f"{event.job.name}: {sign}")
        else:
            self._show(event.job.name, _DONE, _ended(event), 1)

    def _show(self, step: str, mark: str, state: str, completed: float = 0, total: float = 1) -> None:
        self.progress.update(self._tasks[step], mark=mark, state=escape(state), completed=completed, total=total)


class Pace:
    """How fast a step moves, measured from its first progress on, so that its start-up does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def describe(self, progress: Progress) -> str:
        """Returns `3.4 steps/s, 2m10s left`, or an empty string before there is anything to measure."""
        now, unit = self._clock(), progress.unit
        if self._first is None or progress.done < self._first[1]:
            self._first = (now, progress.done)
        start, before = self._first
        if progress.done <= before or now <= start:
            return ""
        rate = (progress.done - before) / (now - start)
        shown = f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s per {unit.removesuffix('s')}"
        left = max(progress.total - progress.done, 0) / rate
        return f"{shown}, {in_words(left)} left" if progress.total else shown


def _state(progress: Progress, pace: Pace) -> str:
    done = f"{progress.done}/{progress.total}" if progress.total else f"{progress.done}"
    values = [f"{name} {value:.4g}" for name, value in list(progress.values.items())[:_VALUES_SHOWN]]
    return ", ".join(filter(None, [f"{done} {progress.unit}", *values, pace.describe(progress)]))


def _new_signs(event: Noted, shown: set[str]) -> Iterator[str]:
    """Warnings that what was noted gives reason for, each of them once."""
    for sign in stage_signs(event.job.name, event.facts):
        if sign not in shown:
            shown.add(sign)
            yield f"warning: {sign}"


def _ended(event: Finished) -> str:
    took = in_words(float(event.manifest.get("seconds", 0.0)))
    return f"cached (took {took} when it was computed)" if event.cached else f"done in {took}"


def in_words(seconds: float) -> str:
    """Returns `3.2 s`, `2m10s` or `1h04m`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def say(screen: Console, line: str) -> None:
    """Prints a line as it is: without markup, colours or line breaks."""
    screen.print(line, markup=False, highlight=False, soft_wrap=True)
