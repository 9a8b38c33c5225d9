"""One cell, computed in whatever process: what it is sent as, and what comes back."""

from __future__ import annotations

import os
import tomllib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reaemb_bench.bench.grid import Task
from reaemb_bench.errors import UserError, reason_of
from reaemb_bench.machine import Machine
from reaemb_bench.pipeline import Event, Finished, Job, Planned, Started, execute, plan
from reaemb_bench.recipe import from_raw
from reaemb_bench.store import Store
from reaemb_bench.tracking.terminal import Lines

Message = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """How a cell ended. reason: why it failed, or nothing. key: of the step that failed, or nothing."""

    reason: str = ""
    key: str = ""


def message(task: Task, machine: Machine) -> Message:
    """The task as JSON data that another process understands, with absolute folders."""
    folders = {"store": str(machine.store.absolute()), "cache": str(machine.cache.absolute())}
    return {
        "recipe": task.planned.recipe.toml(),
        "name": task.planned.recipe.name,
        "seed": task.planned.seed,
        "machine": {**machine.model_dump(mode="json"), **folders},
        "folder": str(Path.cwd()),
    }


def compute(sent: Message, say: Callable[[str], None]) -> Answer:
    """Execute a message's plan; say takes a line of progress now and then. No error of a step gets out."""
    os.chdir(sent["folder"])
    machine = Machine.model_validate(sent["machine"])
    under_way: list[Job] = []
    try:
        planned = plan(from_raw(tomllib.loads(sent["recipe"]), sent["name"]), sent["seed"])
        lines = Lines(planned, say)

        def watch(event: Event) -> None:
            if isinstance(event, Started):
                under_way[:] = [event.job]
            elif isinstance(event, Finished):
                under_way.clear()
            if not (isinstance(event, Planned) or (isinstance(event, Finished) and event.cached)):
                lines(event)

        execute(planned, Store(machine.store), machine, watch)
    except Exception as error:  # noqa: BLE001 - one method's failure must not cost the others their results
        if not isinstance(error, UserError):
            traceback.print_exc()
        if not under_way:
            return Answer(reason_of(error))
        return Answer(f"{under_way[0].name}: {reason_of(error)}", under_way[0].key)
    return Answer()
