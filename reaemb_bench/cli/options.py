"""Options that several verbs share, each declared once, and how verbs print.

Verbs import the rooms they need inside their functions, so that `--help` and completion stay quick.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer
from rich.console import Console
from rich.table import Table

from reaemb_bench.core.errors import RecipeError, UserError

if TYPE_CHECKING:
    from reaemb_bench.core.machine import Machine
    from reaemb_bench.core.store import Store

DEFAULT_RECIPE = "recipes/reaemb_full.toml"
MetricName = Literal["ndcg", "hr", "mrr"]

_PREFIX = "REAEMB_BENCH_"
_WIDTH_OF_FILES = 160


def _recipe_names(incomplete: str) -> list[str]:
    from reaemb_bench.core.recipe import shipped_names

    local = [str(file) for file in sorted(Path().glob("*.toml"))]
    return [name for name in (*local, *shipped_names()) if name.startswith(incomplete)]


RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.", autocompletion=_recipe_names
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STEP.SETTING=VALUE", help="Change a setting; may be repeated."),
]
Drops = Annotated[
    list[str] | None,
    typer.Option("--drop", metavar="STEP[.PART]", help="Take out a step or a part of one; may be repeated."),
]
TablesFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Also write the tables, as .md, .tex, .html, .json, .csv or .svg."),
]


def _machine_option(name: str, help_text: str, *words: str) -> Any:
    return typer.Option(*words, envvar=f"{_PREFIX}{name.upper()}", help=help_text, rich_help_panel="Machine")


_MACHINE_OPTIONS: dict[str, tuple[Any, Any]] = {
    "device": (Annotated[str, _machine_option("device", "auto, cpu, cuda, cuda:1 or mps.")], "auto"),
    "precision": (
        Annotated[str, _machine_option("precision", "Arithmetic of the language model: auto, float32 or bfloat16.")],
        "auto",
    ),
    "micro_batch": (
        Annotated[int | None, _machine_option("micro_batch", "Prompts that the language model reads at once.")],
        None,
    ),
    "threads": (Annotated[int | None, _machine_option("threads", "CPU threads of torch.")], None),
    "deterministic": (
        Annotated[bool, _machine_option("deterministic", "Make a GPU repeat its bits; slower.", "--deterministic")],
        False,
    ),
    "store": (Annotated[Path | None, _machine_option("store", "Folder of all results.", "--store")], None),
    "cache": (
        Annotated[Path | None, _machine_option("cache", "Folder of downloaded data and weights.", "--cache")],
        None,
    ),
    "mlflow": (
        Annotated[
            str | None,
            _machine_option("mlflow", "MLflow tracking URI; an empty string turns tracking off.", "--mlflow"),
        ],
        None,
    ),
    "log_models": (
        Annotated[bool, _machine_option("log_models", "Also copy recommenders and vectors to MLflow.", "--log-models")],
        False,
    ),
}
COMPUTE = ("device", "precision", "micro_batch", "threads", "deterministic", "store", "cache")
"""Machine options of every verb that computes."""


def machine_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a verb that takes `machine: Machine`: on the command line it has the options `names` instead."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(verb, localns={"Machine": Any}, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(verb).parameters.items()
            if name != "machine"
        ]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in _MACHINE_OPTIONS.items()
            if name in names
        ]

        @functools.wraps(verb)
        def with_options(**given: Any) -> None:
            machine = _machine({name: given.pop(name) for name in names})
            verb(**given, machine=machine)

        signature = inspect.Signature([*own, *shared])
        with_options.__signature__ = signature  # type: ignore[attr-defined]
        with_options.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return with_options

    return decorate


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


def existing_store(machine: Machine) -> Store:
    """The store of earlier runs. Raises UserError if there is none."""
    from reaemb_bench.core.store import Store

    if not machine.store.is_dir():
        raise UserError(f"there is no store {machine.store}; run a recipe first, or name another with --store")
    return Store(machine.store)


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for whole tables if it is a file or a pipe."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=_WIDTH_OF_FILES)


def say(line: str, style: str | None = None) -> None:
    """Print a line as it is, without markup and without breaking it."""
    console().print(line, style=style, markup=False, highlight=False, soft_wrap=True)


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
    place = "in the recipe, " if isinstance(error, RecipeError) and error.path else ""
    return " ".join(f"{place}{error}".split())
