"""Progress on the screen: a live view of a run's steps or of many cells on a terminal, plain lines everywhere else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.text import Text

from reaemb_bench.core.component import Progress
from reaemb_bench.core.execute import Event, Finished, Noted, Planned, Progressed, Started, Waiting, Watch
from reaemb_bench.core.plan import Plan, differences, flatten
from reaemb_bench.core.store import MANIFEST, Store
from reaemb_bench.evaluation.health import stage_signs

_SECONDS_BETWEEN_LINES = 5.0
_VALUES_SHOWN = 3
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PER_SECOND = 8
_BAR = 16
_LATEST = 300
"""How many of the latest results tell how long a step takes."""
State = Literal["waiting", "running", "done", "failed"]
_MARKS: dict[State, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "running": ("▶", "yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
}


@contextmanager
def watching(planned: Plan, screen: Console, course: Course | None = None, *, keep: bool = True) -> Iterator[Watch]:
    """Gives a watcher of one plan that suits the screen; the live view ends with the block.

    course: of the same plan, if it is told of events before. keep: whether the view stays on the screen.
    """
    if not screen.is_terminal or screen.is_dumb_terminal:
        yield Lines(planned, lambda line: say(screen, line))
        return
    own = Course.of(planned) if course is None else course
    signs: set[str] = set()

    def watch(event: Event) -> None:
        if course is None:
            own(event)
        if isinstance(event, Planned):
            for note in event.notes:
                say(screen, note)
        elif isinstance(event, Noted):
            for sign in _new_signs(event, signs):
                say(screen, f"{event.job.name}: {sign}")

    with Live(
        console=screen, transient=not keep, refresh_per_second=_PER_SECOND, get_renderable=lambda: StepsView(own)
    ):
        try:
            yield watch
        except BaseException:
            own.fail("did not end")
            raise


@dataclass
class StepCourse:
    """Where a step is. words: what became of it, or who computes it. phase: what it does now. since: time of its start.

    rate: units a second. expected: seconds that a similar result took.
    """

    name: str
    state: State = "waiting"
    words: str = ""
    phase: str = ""
    since: float = 0.0
    done: int = 0
    total: int = 0
    unit: str = ""
    values: dict[str, float] = field(default_factory=dict)
    rate: float = 0.0
    expected: float | None = None

    def left(self, now: float) -> float | None:
        """Seconds until it ends; None if nobody can tell."""
        if self.state == "done":
            return 0.0
        if self.state == "running" and self.rate and self.total:
            return max(self.total - self.done, 0) / self.rate
        return None if self.expected is None else max(self.expected - (now - self.since if self.since else 0.0), 0.0)


@dataclass
class Course:
    """Where a run is, from the events of the pipeline; times are seconds since 1970.

    name: of its recipe. ended: how it ended, empty before. store: whose results tell how long steps take.
    """

    title: str
    name: str
    steps: list[StepCourse]
    started: float = field(default_factory=time.time)
    ended: str = ""
    store: Store | None = None
    pace: Pace = field(default_factory=lambda: Pace())

    @classmethod
    def of(cls, planned: Plan, store: Store | None = None) -> Course:
        """The course of a plan that has not started."""
        recipe, title = planned.recipe, f"{planned.recipe.title}, seed {planned.seed}"
        if planned.seed in recipe.seeds and len(recipe.seeds) > 1:
            title += f" ({recipe.seeds.index(planned.seed) + 1} of {len(recipe.seeds)})"
        return cls(title, recipe.name, [StepCourse(job.name) for job in planned.jobs], store=store)

    def __call__(self, event: Event) -> None:
        """Takes one event of the pipeline."""
        if isinstance(event, Planned):
            for step, job in zip(self.steps, event.plan.jobs, strict=True):
                if job.key not in event.needed:
                    step.expected = 0.0
                    if job.key not in event.cached:
                        step.state, step.words = "done", "not needed"
            if self.store is not None and event.needed:
                for name, seconds in expected_seconds(event.plan, event.needed, self.store).items():
                    self._step(name).expected = seconds
            return
        step = self._step(event.job.name)
        if isinstance(event, Waiting):
            step.words = f"waits for {event.owner}"
        elif isinstance(event, Started):
            self.pace = Pace()
            step.state, step.words, step.since = "running", "", time.time()
        elif isinstance(event, Progressed):
            progress = event.progress
            step.phase, step.done, step.total, step.unit = progress.phase, progress.done, progress.total, progress.unit
            step.values = dict(progress.values) or step.values
            step.rate = self.pace.rate(progress)
        elif isinstance(event, Finished):
            step.state, step.words = "done", _ended(event)

    def fail(self, words: str) -> None:
        """Takes that the run ended before its time, and how."""
        self.ended = words
        for step in self.steps:
            if step.state == "running":
                step.state, step.words = "failed", step.phase

    def _step(self, name: str) -> StepCourse:
        return next(step for step in self.steps if step.name == name)

    def left(self, now: float) -> str:
        """When all steps will be done, in words; empty if nothing is known."""
        by_step = [step.left(now) for step in self.steps]
        known = sum(seconds for seconds in by_step if seconds is not None)
        if not known and None in by_step:
            return ""
        return f"{'more than' if None in by_step else 'about'} {in_words(known)} left"


def expected_seconds(planned: Plan, needed: frozenset[str], store: Store) -> dict[str, float]:
    """Step -> seconds that the most similar of the store's latest results of that step took; only steps with one."""
    files = [(file.stat().st_mtime, file) for file in store.root.glob(f"results/*/{MANIFEST}")]
    earlier: dict[str, list[tuple[dict[str, object], float]]] = {}
    for _, file in sorted(files, reverse=True)[:_LATEST]:
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            known = earlier.setdefault(manifest["step"], [])
            known.append((flatten(manifest["identity"]["step"]), float(manifest["seconds"])))
        except (OSError, ValueError, KeyError, TypeError):
            # It is the step that needs a damaged result that reports it.
            continue
    seconds = {}
    for job in planned.jobs:
        if job.key in needed and job.name in earlier:
            own = flatten(json.loads(json.dumps(job.identity["step"])))
            seconds[job.name] = min(earlier[job.name], key=lambda pair: len(differences(pair[0], own)))[1]
    return seconds


@dataclass(frozen=True)
class StepsView:
    """What the terminal shows of a course: names of steps are whole, values give way.

    now: None is the present. brief: of the steps only those that run.
    """

    course: Course
    now: float | None = None
    brief: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yields a line for the run, one for each step, and one for the whole."""
        course, now = self.course, time.time() if self.now is None else self.now
        steps = [step for step in course.steps if not self.brief or step.state in ("running", "failed")]
        names = max((len(step.name) for step in steps), default=0)
        yield _one_line(course.title, "bold")
        for step in steps:
            parts = _parts(step, now) if step.state == "running" else [(0, Text(step.words, style="dim"))]
            yield _fitted(step, names, parts, options.max_width)
        done = sum(step.state == "done" for step in course.steps)
        words = [f"{done} of {len(course.steps)} steps", in_words(now - course.started), course.ended]
        if not course.ended and done < len(course.steps):
            words.append(course.left(now))
        yield _one_line(f"  {', '.join(filter(None, words))}", "dim")


def _parts(step: StepCourse, now: float) -> list[tuple[int, Text]]:
    """What there is to say of a running step, in order; the least number stays longest."""
    elapsed = in_words(now - step.since)
    if not step.unit:
        return [(0, Text(step.phase or "starting")), (1, Text(elapsed, style="dim"))]
    done = f"{step.done:{len(str(step.total))}}/{step.total} {step.unit}" if step.total else f"{step.done} {step.unit}"
    left = step.left(now)
    filled = round(_BAR * min(step.done / step.total, 1)) if step.total else 0
    bar = Text.assemble(("━" * filled, "cyan"), ("━" * (_BAR - filled), "bright_black"))
    # What is judged says more than a loss.
    named = sorted(step.values.items(), key=lambda pair: "ndcg" not in pair[0])[:_VALUES_SHOWN]
    values = [Text(f"{name} {value:#.4g}".rstrip(".")) for name, value in named]
    parts = [
        *([(3, bar)] if step.total else []),
        (0, Text(f"{step.phase} {done}".strip())),
        (1, Text((elapsed if left is None else f"{in_words(left)} left").ljust(11), style="cyan")),
        *((5 if number else 2, value) for number, value in enumerate(values)),
    ]
    return [*parts, (4, Text(_speed(step.rate, step.unit), style="dim"))] if step.rate else parts


def _fitted(step: StepCourse, names: int, parts: Sequence[tuple[int, Text]], width: int) -> Text:
    """A line with mark and name, and as many of the parts as there is room for."""
    mark, colour = _MARKS[step.state]
    frame = _FRAMES[int(time.monotonic() * _PER_SECOND) % len(_FRAMES)]
    line = Text.assemble("  ", (frame if step.state == "running" else mark, colour), " ", step.name.ljust(names))
    room, kept = width - line.cell_len, set[int]()
    for _, number in sorted((rank, number) for number, (rank, _) in enumerate(parts)):
        needed = parts[number][1].cell_len + 2
        if needed > room and kept:
            break
        kept.add(number)
        room -= needed
    for number in sorted(kept):
        line = Text.assemble(line, "  ", parts[number][1])
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _one_line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


class Ended(str):
    """The last line of a cell or a trial. value: what it reached, if anything."""

    value: float | None = None
    failed: bool = False

    @classmethod
    def of(cls, line: str, value: float | None = None, *, failed: bool = False) -> Ended:
        """The line with what it says of the end."""
        ended = cls(line)
        ended.value, ended.failed = value, failed
        return ended


class Board:
    """Takes lines `LABEL: WORDS` of cells, trials or variants: a live table on a terminal, else they are printed."""

    def __init__(
        self, title: str, labels: Sequence[str], screen: Console, metric: str, *, lowest: bool = False
    ) -> None:
        """metric: what cells reach, and lowest: whether little of it is better."""
        self._title, self._screen, self._metric, self._lowest = title, screen, metric, lowest
        self.rows = {label: StepCourse(label) for label in labels}
        self._started = time.time()
        self.live = screen.is_terminal and not screen.is_dumb_terminal

    @contextmanager
    def shown(self) -> Iterator[Board]:
        """Shows the table while the block runs, and at its end one line of what came out."""
        if not self.live:
            yield self
            return
        with Live(console=self._screen, transient=True, refresh_per_second=_PER_SECOND, get_renderable=lambda: self):
            yield self
        if any(row.since for row in self.rows.values()):
            say(self._screen, self._summary())

    def __call__(self, line: str) -> None:
        """Takes one line; one without a known label, or with the number of a new trial, is printed."""
        label, colon, words = line.partition(": ")
        if colon and re.fullmatch(r"trial \d+", label):
            self.rows.setdefault(label, StepCourse(label))
        if not self.live or label not in self.rows or "warning: " in words:
            say(self._screen, line)
            return
        row = self.rows[label]
        row.since = row.since or time.time()
        row.state, row.words = "running", words
        if isinstance(line, Ended):
            row.state = "failed" if line.failed else "done"
            # The whole is counted above; here, how long this one took.
            row.words = re.sub(r" \[\d+/\d+, .*\]$", f", {in_words(time.time() - row.since)}", words)
            if line.failed:
                say(self._screen, line)
            if line.value is not None:
                row.values = {self._metric: line.value}

    def _summary(self) -> str:
        rows = self.rows.values()
        count = {state: sum(row.state == state for row in rows) for state in _MARKS}
        elapsed, ended = time.time() - self._started, count["done"] + count["failed"]
        parts = [f"{ended} of {len(rows)} ended", f"{count['failed']} failed" if count["failed"] else ""]
        parts.append(in_words(elapsed))
        if 0 < ended < len(rows):
            parts.append(f"about {in_words(elapsed / ended * (len(rows) - ended))} left")
        if known := {row.name: row.values[self._metric] for row in rows if row.values}:
            best = (min if self._lowest else max)(known, key=known.__getitem__)
            parts.append(f"best {self._metric} {known[best]:.4f} ({best})")
        return f"{self._title}: {', '.join(filter(None, parts))}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yields a line for the whole and one for each row that there is room for: those under way first."""
        yield Text(self._summary(), style="bold")
        order = {"running": 0, "failed": 1, "done": 2, "waiting": 3}
        rows, room = list(self.rows.values()), max(3, console.height - 16)
        latest = sorted(rows, key=lambda row: (order[row.state], -row.since))[:room]
        names = max(len(row.name) for row in latest) if latest else 0
        for row in (row for row in rows if row in latest):
            value = [(0, Text(f"{self._metric} {value:.4f}")) for value in row.values.values()]
            parts = [part for part in row.words.split(", ") if part and not (value and part.startswith(self._metric))]
            words = [(1, Text(part, style="dim")) for part in parts]
            yield _fitted(row, names, [*value, *words], options.max_width)
        if len(rows) > len(latest):
            yield Text(f"  and {len(rows) - len(latest)} more", style="dim")


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


class Pace:
    """How fast a step moves, measured from its first progress on, so that its start-up does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int, str] | None = None

    def rate(self, progress: Progress) -> float:
        """Returns units a second, or 0 before there is anything to measure."""
        now = self._clock()
        if self._first is None or progress.done < self._first[1] or progress.unit != self._first[2]:
            self._first = (now, progress.done, progress.unit)
        start, before, _ = self._first
        return (progress.done - before) / (now - start) if progress.done > before and now > start else 0.0

    def describe(self, progress: Progress) -> str:
        """Returns `3.4 steps/s, 2m10s left`, or an empty string before there is anything to measure."""
        rate = self.rate(progress)
        if not rate:
            return ""
        shown = _speed(rate, progress.unit)
        left = max(progress.total - progress.done, 0) / rate
        return f"{shown}, {in_words(left)} left" if progress.total else shown


def _speed(rate: float, unit: str) -> str:
    return f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s per {unit.removesuffix('s')}"


def _state(progress: Progress, pace: Pace) -> str:
    if not progress.unit:
        return progress.phase
    done = f"{progress.done}/{progress.total}" if progress.total else f"{progress.done}"
    values = [f"{name} {value:.4g}" for name, value in list(progress.values.items())[:_VALUES_SHOWN]]
    return ", ".join(filter(None, [progress.phase, f"{done} {progress.unit}", *values, pace.describe(progress)]))


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
