"""Options that several verbs share, and what is made of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import shipped_names
from reaemb_bench.core.registry import kinds, settings_error

DEFAULT_RECIPE = "recipes/reaemb_full.toml"

_PREFIX = "REAEMB_BENCH_"
_WIDTH_OF_FILES = 160


def recipe_names(incomplete: str) -> list[str]:
    """What completes the name of a recipe: TOML files here, then shipped recipes."""
    here = [str(file) for file in sorted(Path().glob("*.toml"))]
    return [name for name in (*here, *shipped_names()) if name.startswith(incomplete)]


def component_kinds(incomplete: str) -> list[str]:
    """What completes the name of a kind of component."""
    return [kind for kind in kinds() if kind.startswith(incomplete)]


RecipePlace = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.", autocompletion=recipe_names),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STEP.SETTING=VALUE", help="Change a setting; may be repeated."),
]
Drops = Annotated[
    list[str] | None,
    typer.Option("--drop", metavar="STEP[.PART]", help="Take out a step or a part of one; may be repeated."),
]
Device = Annotated[str, typer.Option(envvar=f"{_PREFIX}DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")]
Precision = Annotated[
    str, typer.Option(envvar=f"{_PREFIX}PRECISION", help="Arithmetic of the language model: auto, float32 or bfloat16.")
]
MicroBatch = Annotated[
    int | None,
    typer.Option(envvar=f"{_PREFIX}MICRO_BATCH", help="Prompts that pass through the language model at once."),
]
Threads = Annotated[int | None, typer.Option(envvar=f"{_PREFIX}THREADS", help="CPU threads of torch.")]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic", envvar=f"{_PREFIX}DETERMINISTIC", help="Have a GPU repeat its bits, at a price in time."
    ),
]
StorePlace = Annotated[Path | None, typer.Option("--store", envvar=f"{_PREFIX}STORE", help="Folder of all results.")]
CachePlace = Annotated[
    Path | None, typer.Option("--cache", envvar=f"{_PREFIX}CACHE", help="Folder of downloaded data and weights.")
]
MlflowPlace = Annotated[
    str | None,
    typer.Option("--mlflow", envvar=f"{_PREFIX}MLFLOW", help="MLflow tracking URI; an empty string tracks nothing."),
]

LogModels = Annotated[
    bool,
    typer.Option("--log-models", envvar=f"{_PREFIX}LOG_MODELS", help="Copy recommenders and vectors to MLflow too."),
]


def machine_from(**given: Any) -> Machine:
    """Machine settings from options; None leaves a setting at its default. Raises UserError naming the option."""
    if given.get("mlflow") is None and os.environ.get(f"{_PREFIX}MLFLOW") == "":
        # Typer takes an empty variable for an absent one, but here it says that nothing is to be tracked.
        given["mlflow"] = ""
    try:
        return Machine.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        refused = settings_error(error, Machine.model_fields)
        raise UserError(f"--{'.'.join(refused.path).replace('_', '-')}: {refused.message}") from None


def limit_threads(machine: Machine) -> None:
    """Have torch, which is not imported yet, use as many CPU threads as the machine settings say."""
    if machine.threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(machine.threads)


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for whole tables where it is a file or a pipe."""
    made = Console()
    return made if made.is_terminal else Console(width=_WIDTH_OF_FILES)


def in_words(error: UserError) -> str:
    """The error as one line, with the place in the recipe in front where it has one."""
    place = "in the recipe, " if isinstance(error, RecipeError) and error.path else ""
    return " ".join(f"{place}{error}".split())
