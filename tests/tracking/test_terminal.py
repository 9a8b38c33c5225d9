"""What the terminal shows while a recipe runs."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from reaemb_bench.core.component import Progress
from reaemb_bench.core.execute import Noted, Progressed, Started, execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import load
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.terminal import Lines, Pace, in_words, watching


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
