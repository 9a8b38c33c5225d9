"""How a run looks while it goes on: a live view of all steps on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import rich.progress
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn

from reaemb_bench.core.component import Progress
from reaemb_bench.core.execute import Event, Finished, Planned, Progressed, Started, Watch
from reaemb_bench.core.plan import Plan

_SECONDS_BETWEEN_LINES = 5.0
_VALUES_SHOWN = 3
_WAITING = "[dim]·[/]"
_RUNNING = "[yellow]▶[/]"
_DONE = "[green]✓[/]"


@contextmanager
def watching(planned: Plan, screen: Console) -> Iterator[Watch]:
    """A watcher for one plan that suits the screen; the live view ends with the block."""
    if not screen.is_terminal:
        yield Lines(planned, lambda line: screen.print(line, markup=False, highlight=False, soft_wrap=True))
        return
    view = LiveView(planned, screen)
    with view.progress:
        yield view


@dataclass
class Pace:
    """How fast a step moves, measured from its first tick on, so that its start-up does not count."""

    clock: Callable[[], float] = time.monotonic
    _first: tuple[float, int] | None = None

    def describe(self, tick: Progress) -> str:
        """`3.4 steps/s, 2m10s left`, or an empty string before there is anything to measure."""
        now = self.clock()
        if self._first is None or tick.done < self._first[1]:
            self._first = (now, tick.done)
        begun, before = self._first
        if tick.done <= before or now <= begun:
            return ""
        rate = (tick.done - before) / (now - begun)
        shown = f"{rate:.1f} {tick.unit}/s" if rate >= 1 else f"{1 / rate:.1f} s per {tick.unit.removesuffix('s')}"
        left = max(tick.total - tick.done, 0) / rate
        return f"{shown}, {in_words(left)} left" if tick.total else shown


@dataclass
class Lines:
    """Plain lines: one where a step starts, one where it ends, and a tick every few seconds."""

    planned: Plan
    write: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _last: float = 0.0
    _pace: Pace = field(default_factory=Pace)

    def __call__(self, event: Event) -> None:
        """Take one event of the pipeline."""
        if isinstance(event, Planned):
            title = event.plan.recipe.title
            self.write(
                f"{title}, seed {event.plan.seed}: {len(event.needed)} of {len(self.planned.jobs)} steps to compute"
            )
            return
        place = [job.name for job in self.planned.jobs].index(event.job.name) + 1
        prefix = f"[{place}/{len(self.planned.jobs)}] {event.job.name}"
        if isinstance(event, Started):
            self._last, self._pace = self.clock(), Pace(self.clock)
            self.write(f"{prefix}: starts")
        elif isinstance(event, Progressed):
            pace = self._pace.describe(event.progress)
            if self.clock() - self._last >= _SECONDS_BETWEEN_LINES:
                self._last = self.clock()
                self.write(f"{prefix}: {_join(_progress(event.progress), _values(event.progress.values), pace)}")
        else:
            self.write(f"{prefix}: {_ended(event)}")


class LiveView:
    """One line a step: state, bar, current values, rate and time left."""

    def __init__(self, planned: Plan, screen: Console) -> None:
        self.progress = rich.progress.Progress(
            TextColumn("{task.fields[mark]} {task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}"),
            console=screen,
        )
        self._tasks: dict[str, TaskID] = {
            job.name: self.progress.add_task(escape(job.name), total=1, mark=_WAITING, state="waiting")
            for job in planned.jobs
        }
        self._pace = Pace()

    def __call__(self, event: Event) -> None:
        """Take one event of the pipeline."""
        if isinstance(event, Planned):
            for job in event.plan.jobs:
                if job.key not in event.cached | event.needed:
                    self._show(job.name, _DONE, "not needed", completed=1, total=1)
        elif isinstance(event, Started):
            self._pace = Pace()
            self._show(event.job.name, _RUNNING, "starting", completed=0, total=1)
        elif isinstance(event, Progressed):
            tick = event.progress
            state = _join(_progress(tick), _values(tick.values), self._pace.describe(tick))
            self._show(event.job.name, _RUNNING, state, completed=tick.done, total=max(tick.total, tick.done + 1))
        else:
            self._show(event.job.name, _DONE, _ended(event), completed=1, total=1)

    def _show(self, name: str, mark: str, state: str, completed: float, total: float) -> None:
        self.progress.update(self._tasks[name], mark=mark, state=escape(state), completed=completed, total=total)


def in_words(seconds: float) -> str:
    """`3.2 s`, `2m10s` or `1h04m`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def _ended(event: Finished) -> str:
    took = in_words(float(event.manifest.get("seconds", 0.0)))
    return f"cached (took {took} when it was computed)" if event.cached else f"done in {took}"


def _progress(tick: Progress) -> str:
    return f"{tick.done}/{tick.total} {tick.unit}" if tick.total else f"{tick.done} {tick.unit}"


def _values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in list(values.items())[:_VALUES_SHOWN])


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def say(screen: Console, line: str) -> None:
    """Print a line as it is: no markup, no colours of its own, not broken where it is long."""
    screen.print(line, markup=False, highlight=False, soft_wrap=True)
