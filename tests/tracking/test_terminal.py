"""What the terminal shows while a recipe runs."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from reaemb_bench.core.component import Progress
from reaemb_bench.core.execute import Noted, Progressed, Started, execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.terminal import Board, Course, Ended, Lines, Pace, StepCourse, StepsView, in_words, watching


def test_plain_lines_tick_every_few_seconds(toy_recipe: Path) -> None:
    planned = plan(load(toy_recipe), 42)
    now = [100.0]
    lines: list[str] = []
    watch = Lines(planned, lines.append, clock=lambda: now[0])
    train = planned.jobs[2]
    watch(Started(train))
    for done in range(1, 13):
        watch(Progressed(train, Progress(done, 20, "steps", {"loss": 1 / done})))
        now[0] += 1.0
    assert lines == [
        "[3/4] train: starts",
        "[3/4] train: 6/20 steps, loss 0.1667, 1.0 steps/s, 14 s left",
        "[3/4] train: 11/20 steps, loss 0.09091, 1.0 steps/s, 9.0 s left",
    ]


def test_a_stage_that_is_ill_is_told_at_once_and_once(toy_recipe: Path) -> None:
    planned = plan(load(toy_recipe), 42)
    lines: list[str] = []
    watch = Lines(planned, lines.append)
    train = planned.jobs[2]
    halfway = {"chance_loss": 3.0, "halfway_loss": 2.5, "halfway_own_first": 0.25}
    for new in ({}, {"moved": 1.0}, {"final_loss": 3.5, "final_own_first": 0.75}):
        watch(Noted(train, {**halfway, **new}))
    own, loss = lines
    assert own.startswith("[3/4] train: warning: in 25 % of the rows of train the largest target is the item itself")
    assert loss.startswith("[3/4] train: warning: the loss of train ended at 3.50, and equal scores have 3.00")
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    with watching(planned, screen) as live:
        live(Noted(train, {"halfway_own_first": 0.25}))
    assert isinstance(screen.file, io.StringIO)
    assert "train: warning: in 25 % of the rows" in screen.file.getvalue()


def test_the_pace_leaves_out_what_came_before_the_first_tick() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.describe(Progress(1, 3, "steps")) == ""
    now[0] = 4.0
    assert pace.describe(Progress(2, 3, "steps")) == "4.0 s per step, 4.0 s left"


def test_a_live_view_shows_every_step(toy_recipe: Path, tmp_path: Path) -> None:
    planned = plan(load(toy_recipe), 42)
    store = Store(tmp_path / "store")
    shown = []
    for _ in range(2):
        screen = Console(file=io.StringIO(), force_terminal=True, width=120)
        with watching(planned, screen) as watch:
            execute(planned, store, Machine(), watch)
        assert isinstance(screen.file, io.StringIO)
        shown.append(screen.file.getvalue())
    assert "done in" in shown[0]
    assert shown[1].count("cached (took") >= len(planned.jobs)


def test_durations_in_words() -> None:
    assert [in_words(seconds) for seconds in (3.21, 59, 130, 3840)] == ["3.2 s", "59 s", "2m10s", "1h04m"]


def shown(renderable: object, width: int) -> list[str]:
    screen = Console(file=io.StringIO(), width=width, height=40, color_system=None)
    screen.print(renderable)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


def running(**changed: Any) -> StepCourse:
    values = {"loss": 2.3104, "temperature": 0.05, "own_first": 0.25}
    given = {
        "state": "running",
        "since": 990.0,
        "done": 120,
        "total": 300,
        "unit": "steps",
        "values": values,
        "rate": 3.4,
    }
    return StepCourse("contrastive", **{**given, **changed})


@pytest.mark.parametrize("width", [40, 80, 100, 160])
def test_names_are_whole_and_values_give_way(width: int) -> None:
    course = Course(
        "Toys, seed 1", "toys", [StepCourse("prepare", "done", "cached"), running(), StepCourse("rank")], 900.0
    )
    lines = shown(StepsView(course, now=1000.0), width)
    assert max(map(len, lines)) <= width
    step = next(line for line in lines if "contrastive" in line)
    assert "120/300 steps" in step
    order = ["53 s left", "loss 2.310", "━━━━", "3.4 steps/s", "temperature 0.05000"]
    kept = [part in step for part in order]
    assert kept == sorted(kept, reverse=True), "the last of them goes first"
    assert sum(kept) == {40: 0, 80: 3, 100: 4, 160: 5}[width]
    assert [line.split()[1] for line in lines[1:4]] == ["prepare", "contrastive", "rank"]
    assert lines[-1].startswith("  1 of 3 steps, 1m40s, more than 53 s left"[: width - 1])


def test_what_similar_results_took_says_when_a_run_will_end(toy_recipe: Path, tmp_path: Path) -> None:
    store, planned = Store(tmp_path / "store"), plan(load(toy_recipe), 42)
    execute(planned, store, Machine(), lambda event: None)
    again = plan(load(toy_recipe), 43)
    courses = [Course.of(planned, store), Course.of(again, store)]
    for course, of in zip(courses, (planned, again), strict=True):
        execute(of, store, Machine(), lambda event, course=course: course(event))  # type: ignore[misc]
    cached, computed = courses
    assert [step.state for course in courses for step in course.steps] == ["done"] * 2 * len(planned.jobs)
    assert all(step.expected == 0.0 for step in cached.steps)
    assert any(step.expected for step in computed.steps) and computed.left(computed.started) == "about 0.0 s left"
    fresh = Course.of(planned)
    assert fresh.left(fresh.started) == "", "nothing is known"


def test_phases_are_told_where_there_is_nothing_to_count(toy_recipe: Path) -> None:
    planned = plan(load(toy_recipe), 42)
    course, job = Course.of(planned), planned.jobs[2]
    lines: list[str] = []
    now = [100.0]
    plain = Lines(planned, lines.append, clock=lambda: now[0])
    for watch in (course, plain):
        watch(Started(job))
        now[0] += 6
        watch(Progressed(job, Progress(0, 0, "", phase="tokenizing")))
    assert lines[-1] == "[3/4] train: tokenizing"
    assert any("train" in line and "tokenizing" in line for line in shown(StepsView(course), 80))
    course(Progressed(job, Progress(1, 3, "prompts", phase="reading")))
    assert any("reading 1/3 prompts" in line for line in shown(StepsView(course), 80))


def board(width: int, *, terminal: bool, labels: Sequence[str] = ("a, seed 1", "b, seed 1")) -> tuple[Board, Console]:
    screen = Console(file=io.StringIO(), width=width, height=40, force_terminal=terminal, color_system=None)
    return Board("suite", labels, screen, "NDCG@10"), screen


LINES = (
    "2 of 3 cells to compute",
    "a, seed 1: [1/2] train: 3/9 steps, loss 0.5",
    "a, seed 1: [1/2] train: warning: it learned nothing",
    Ended.of("a, seed 1: done [1/2, 3.0 s]", 0.25),
    Ended.of("b, seed 1: failed, out of toys [2/2, 4.0 s]", failed=True),
)


def test_cells_are_plain_lines_where_there_is_no_terminal() -> None:
    table, screen = board(80, terminal=False)
    with table.shown():
        for line in LINES:
            table(line)
    assert isinstance(screen.file, io.StringIO)
    assert screen.file.getvalue().splitlines() == list(LINES)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_terminal_shows_cells_in_a_table_and_the_best_so_far(width: int) -> None:
    table, screen = board(width, terminal=True)
    with table.shown():
        for line in LINES[:4]:
            table(line)
        now = shown(table, width)
        table(LINES[4])
    assert now[0].startswith("suite: 1 of 2 ended") and "best NDCG@10 0.2500 (a, seed 1)" in now[0]
    assert [line.split()[0] for line in now[1:]] == ["✓", "·"] and "a, seed 1  NDCG@10 0.2500  done  0.0 s" in now[1]
    assert isinstance(screen.file, io.StringIO)
    kept = screen.file.getvalue()
    assert all(LINES[number] in kept for number in (0, 2, 4)), "what is to stay is printed"
    assert "suite: 2 of 2 ended, 1 failed" in kept.splitlines()[-1]


def test_more_cells_than_lines_leave_room_for_those_under_way() -> None:
    labels = [f"cell {number}" for number in range(200)]
    table, _ = board(80, terminal=True, labels=labels)
    table("cell 150: [1/2] train: starts")
    table("trial 7: begins")
    lines = shown(table, 80)
    assert len(lines) < 40 and lines[-1].strip().startswith("and ")
    assert any("cell 150" in line for line in lines) and any("trial 7" in line for line in lines)


def test_the_last_line_of_a_cell_keeps_its_value_between_processes() -> None:
    sent = pickle.loads(pickle.dumps(LINES[3]))  # noqa: S301 - as a pipe between our processes sends it
    assert (sent, sent.value, sent.failed) == (LINES[3], 0.25, False)
