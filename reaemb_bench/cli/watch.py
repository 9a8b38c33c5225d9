"""`reaemb-bench watch` follows runs of other processes and hosts that use the same store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from typer import Argument

from reaemb_bench.cli.options import existing_store, machine_options
from reaemb_bench.cli.screen import console
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine

if TYPE_CHECKING:
    from reaemb_bench.tracking.signs import Sign

_SECONDS_BETWEEN_LOOKS = 0.5
_QUIET_SECONDS = 15.0
"""From which on the silence of a process is told."""
_SECONDS_TO_NEXT_SEED = 5.0
"""How long a process may take from the end of one seed or variant to the next."""


@machine_options("store")
def watch(
    machine: Machine,
    run: Annotated[
        str | None, Argument(metavar="[RUN]", help="Name of a recipe, or the HOST-PROCESS that is shown; else all.")
    ] = None,
) -> None:
    """Follow runs that other processes or hosts compute in the same store, until they end.

    One run is shown step by step, several have a line each, with the seconds for which a process gave no sign of life.
    If the output is not a terminal, it says once where they are. The exit code is 1 if one of them failed.

    Examples:
    reaemb-bench watch
    reaemb-bench watch quickstart --store /shared/store
    """
    from reaemb_bench.tracking.signs import read_signs
    from reaemb_bench.tracking.terminal import StepsView, in_words

    store, screen = existing_store(machine), console()
    # When each sign was first seen, by the clock of this host, and how old it was: clocks of hosts differ.
    seen: dict[tuple[str, float], tuple[float, float]] = {}

    def look() -> list[Sign]:
        """The signs of all that compute, else the last one of what did."""
        wanted = [sign for sign in read_signs(store) if run is None or run in (sign.course.name, sign.process)]
        for sign in wanted:
            known = any(process == sign.process for process, _ in seen)
            age = 0.0 if known else max(0.0, time.time() - sign.written)
            seen.setdefault((sign.process, sign.written), (time.monotonic(), age))
        return [sign for sign in wanted if not over(sign)] or wanted[-1:]

    def quiet(sign: Sign) -> float:
        since, age = seen[sign.process, sign.written]
        return age + time.monotonic() - since

    def over(sign: Sign) -> bool:
        return sign.is_lost() or (bool(sign.course.ended) and quiet(sign) > _SECONDS_TO_NEXT_SEED)

    def state(sign: Sign) -> Text:
        if sign.is_lost():
            return Text(f"  {sign.process} is gone and did not end its run", style="red")
        if sign.course.ended or quiet(sign) < _QUIET_SECONDS:
            return Text(f"  {sign.process}", style="dim")
        return Text(f"  no sign of {sign.process} for {in_words(quiet(sign))}", style="yellow")

    def shown() -> RenderableType:
        lines: list[RenderableType] = []
        for sign in signs:
            now = sign.written + (0.0 if sign.course.ended else quiet(sign))
            lines += [StepsView(sign.course, now, brief=len(signs) > 1), state(sign)]
        return Group(*lines)

    if not (signs := look()):
        which = "a run" if run is None else f"a run '{run}'"
        raise UserError(f"{store.root} has no sign of {which} within a day; start one, or name another --store")
    if screen.is_terminal:
        with Live(console=screen, refresh_per_second=8, get_renderable=shown):
            while not all(map(over, signs)):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                signs = look()
    else:
        screen.print(shown())
    if any(sign.is_lost() or sign.course.ended.startswith("failed") for sign in signs):
        raise typer.Exit(1)
