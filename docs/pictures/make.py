"""Makes the pictures of README and docs from real runs: `python docs/pictures/make.py`, about a minute on one core."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text

from reaemb_bench.core.execute import Event, Progressed, execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.store import Store
from reaemb_bench.experiments.ablate import ablation_tables, read_ablation
from reaemb_bench.experiments.variants import reached
from reaemb_bench.report.render import narrow, picture, render_terminal
from reaemb_bench.tracking.terminal import Board, Course, Ended, StepsView

FOLDER, WIDTH = Path(__file__).parent, 100


def write(name: str, command: str, *shown: RenderableType) -> None:
    """Writes what a terminal of 100 columns shows of a command."""
    (FOLDER / f"{name}.svg").write_text(picture(command, [Text(f"$ {command}\n"), *shown], WIDTH), encoding="utf-8")


def main() -> None:
    """Runs the quickstart and an ablation of it, and takes pictures in the midst of some steps."""
    ablation = read_ablation("quickstart", drops=["crrl"], swaps=["train.objective=bce"])
    names = [variant.name for variant in (ablation.base, *ablation.variants)]
    board = Board(f"ablation of {names[0]}", names, Console(force_terminal=True, width=WIDTH, height=40), "NDCG@10")
    commands = {
        names[0]: ("live_view", "crrl", "reaemb-bench run quickstart"),
        names[-1]: ("ablation", "train", "reaemb-bench ablate quickstart --drop crrl --swap train.objective=bce"),
    }
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for variant in (ablation.base, *ablation.variants):
            board(f"{variant.name}: under way")
            course = Course.of(variant.plans[0], store)
            name, step, command = commands.get(variant.name, ("", "", ""))

            def watch(
                event: Event, course: Course = course, name: str = name, step: str = step, of: str = command
            ) -> None:
                course(event)
                if isinstance(event, Progressed) and event.job.name == step:
                    progress = event.progress
                    if progress.values and progress.done == progress.total // 6:
                        above = [board, Text()] if name == "ablation" else []
                        write(name, of, Group(*above, StepsView(course)))

            execute(variant.plans[0], store, Machine(), watch)
            board(Ended.of(f"{variant.name}: ", reached(variant.plans, store)))
        table, differences, *_ = ablation_tables(ablation, store, {})
        write("table", f"{command} --narrow", render_terminal(narrow(table)), Text(), render_terminal(differences))


if __name__ == "__main__":
    main()
