"""Options that several verbs share, each declared once, and how verbs print.

Verbs import the rooms they need inside their functions, so that `--help` and completion stay quick.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from typer import Argument, Context, Option

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.text import printable

if TYPE_CHECKING:
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.store import Store
    from reaemb_bench.report.table import Table as ResultTable

DEFAULT_RECIPE = "recipes/reaemb_full.toml"
Words = list[str] | None
"""The type of an option or argument that may be repeated."""
MetricName = Literal["ndcg", "hr", "mrr"]

_PREFIX = "REAEMB_BENCH_"
_WIDTH_OF_FILES = 160


def _recipe_names(incomplete: str) -> list[str]:
    from reaemb_bench.core.recipe import shipped_names

    local = [str(file) for file in sorted(Path().glob("*.toml"))]
    return [name for name in (*local, *shipped_names()) if name.startswith(incomplete)]


def run_names(context: Context, incomplete: str) -> list[str]:
    """Completes the name or id of a remembered run."""
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.runs import history
    from reaemb_bench.core.store import Store

    folder = context.params.get("store") or os.environ.get(f"{_PREFIX}STORE") or Machine().store
    with contextlib.suppress(UserError):
        words = dict.fromkeys(word for run in history(Store(Path(folder))) for word in (run.name, run.id))
        return [word for word in words if word.startswith(incomplete)]
    return []


def _setting_names(context: Context, incomplete: str) -> list[str]:
    from reaemb_bench.core.plan import flatten
    from reaemb_bench.core.recipe import load

    with contextlib.suppress(UserError):
        recipe = load(context.params.get("recipe") or DEFAULT_RECIPE)
        paths = flatten({name: step.spec() for name, step in recipe.steps.items()})
        return [f"{path}=" for path in ("seeds", *paths) if path.startswith(incomplete)]
    return []


def _step_names(context: Context, incomplete: str) -> list[str]:
    settings = _setting_names(context, incomplete.partition(".")[0])
    paths = (setting.removesuffix("=").removesuffix(".use") for setting in settings)
    return [path for path in dict.fromkeys(paths) if path.startswith(incomplete) and f"{path}.use=" in settings]


RecipeName = Annotated[
    str, Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.", autocompletion=_recipe_names)
]
Sets = Annotated[
    Words,
    Option("--set", metavar="STEP.SETTING=VALUE", help="Change a setting.", autocompletion=_setting_names),
]
Drops = Annotated[
    Words,
    Option("--drop", metavar="STEP[.PART]", help="Take out a step or a part.", autocompletion=_step_names),
]
RunName = Annotated[
    str, Argument(metavar="RUN", help="Id of a run, the start of one, or its name.", autocompletion=run_names)
]
RunNames = Annotated[
    list[str],
    Argument(metavar="RUN...", help="Ids, their starts, names of runs, or recipes.", autocompletion=run_names),
]
Against = Annotated[
    str | None, Option(metavar="RUN", help="Show how the others differ from this run.", autocompletion=run_names)
]
_MACHINE_OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "device": (str, "auto", "auto, cpu, cuda, cuda:1 or mps."),
    "precision": (str, "auto", "Arithmetic of the language model: auto, float32 or bfloat16."),
    "micro_batch": (int | None, None, "Prompts that the language model reads at once."),
    "threads": (int | None, None, "CPU threads of torch."),
    "deterministic": (bool, False, "Make a GPU repeat its bits; slower."),
    "store": (Path | None, None, "Folder of all results."),
    "cache": (Path | None, None, "Folder of downloaded data and weights."),
    "mlflow": (str | None, None, "MLflow tracking URI; an empty string turns tracking off."),
    "log_models": (bool, False, "Also copy recommenders and vectors to MLflow."),
}
"""Name -> type, default and help."""
COMPUTE = ("device", "precision", "micro_batch", "threads", "deterministic", "store", "cache")
"""Machine options of every verb that computes."""


def _with_known_ending(file: Path | None) -> Path | None:
    from reaemb_bench.report.render import check_ending

    if file is not None:
        check_ending(file)
    return file


def machine_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a verb that takes `machine: Machine`: on the command line it has the options `names` instead."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(verb, localns={"Machine": Any}, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(verb).parameters.items()
            if name != "machine"
        ]
        for name in names:
            kind, default, text = _MACHINE_OPTIONS[name]
            word = f"--{name.replace('_', '-')}"
            option = Option(word, envvar=f"{_PREFIX}{name.upper()}", help=text, rich_help_panel="Machine")
            parameters.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
                )
            )

        @functools.wraps(verb)
        def with_options(**given: Any) -> None:
            machine = _machine({name: given.pop(name) for name in names})
            verb(**given, machine=machine)

        signature = inspect.Signature(parameters)
        with_options.__signature__ = signature  # type: ignore[attr-defined]
        with_options.__annotations__ = {name: option.annotation for name, option in signature.parameters.items()}
        return with_options

    return decorate


TablesFile = Annotated[
    Path | None,
    Option(
        "--out",
        metavar="FILE",
        help="Also write the tables, as .md, .tex, .html, .json, .csv or .svg.",
        callback=_with_known_ending,
    ),
]


def _machine(given: dict[str, Any]) -> Machine:
    """Machine settings from options. Raises UserError naming the option."""
    from pydantic import ValidationError

    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.registry import settings_error

    # A verb without the option tracks nothing. Typer takes an empty variable for an absent one.
    if "mlflow" not in given or (given["mlflow"] is None and os.environ.get(f"{_PREFIX}MLFLOW") == ""):
        given["mlflow"] = ""
    try:
        machine = Machine.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        refused = settings_error(error, Machine.model_fields)
        raise UserError(f"--{'.'.join(refused.path).replace('_', '-')}: {refused.message}") from None
    if machine.threads is not None:
        # Torch, which is not imported yet, reads these once.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(machine.threads)
    return machine


def open_store(machine: Machine) -> Store:
    """The store of the machine settings, which may not exist yet."""
    from reaemb_bench.core.store import Store

    return Store(machine.store)


def existing_store(machine: Machine) -> Store:
    """The store of earlier runs. Raises UserError if there is none."""
    if not machine.store.is_dir():
        raise UserError(f"there is no store {machine.store}; run a recipe first, or name another with --store")
    return open_store(machine)


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for whole tables if it is a file or a pipe."""
    screen = _Screen()
    return screen if screen.is_terminal else _Screen(width=_WIDTH_OF_FILES)


class _Screen(Console):
    """A console on which no printed text can control the terminal; styles and the live view still do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments of what is printed, their texts as `printable` shows them."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, lines=True))


def say(line: str, style: str | None = None) -> None:
    """Print a line as it is, without markup and without breaking it."""
    console().print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def show(*renderables: Any) -> None:
    """Print tables and the like."""
    for renderable in renderables:
        console().print(renderable)


def show_tables(title: str, tables: Sequence[ResultTable], out: Path | None) -> None:
    """Print tables of results, a blank line between them, and write them to the file `--out`."""
    from reaemb_bench.report.render import render_terminal, write_tables

    for table in tables:
        show("", render_terminal(table))
    if out is not None:
        write_tables(out, title, tables)
        say(f"\nwritten to {out}")


def write_file(file: Path, text: str, option: str) -> None:
    """Write a text, whole or not at all. Raises UserError naming the option that chooses another file."""
    from reaemb_bench.core.files import write_atomically

    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}); choose another {option}") from None


def plain_table(*headings: str, right: Collection[str] = (), no_wrap: Collection[str] = ()) -> Table:
    """A table without lines, to be filled; right, no_wrap: headings of columns that are right-aligned or never wrap."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading in no_wrap)
    return table


def component_name(use: str) -> str:
    """The name of a component as tables show it: of `folder/file.py:Class` without the folder."""
    file, colon, attribute = use.rpartition(":")
    return f"{file.rpartition('/')[2]}{colon}{attribute}"


def in_words(error: UserError) -> str:
    """The error as one line, after its place in the recipe if it has one."""
    position = "in the recipe, " if isinstance(error, RecipeError) and error.path else ""
    return " ".join(printable(f"{position}{error}").split())
