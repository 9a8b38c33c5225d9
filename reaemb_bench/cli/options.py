"""Options that several verbs share, each declared once.

Verbs import rooms that load numpy or more inside their functions: `--help` and completion stay quick, and `--threads`
is set before numpy and torch read it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import ValidationError
from typer import Argument, Context, Option

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load, shipped_names
from reaemb_bench.core.registry import settings_error
from reaemb_bench.core.store import Store

DEFAULT_RECIPE = "recipes/reaemb_full.toml"
Words = list[str] | None
"""The type of an option or argument that may be repeated."""

_PREFIX = "REAEMB_BENCH_"
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


def machine_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a verb that takes `machine: Machine`: on the command line it has the options `names` instead."""

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        hints, own = get_type_hints(verb, include_extras=True), inspect.signature(verb).parameters
        parameters = [own[name].replace(annotation=hints[name]) for name in own if name != "machine"]
        for name in names:
            kind, default, text = _MACHINE_OPTIONS[name]
            word, variable = f"--{name.replace('_', '-')}", f"{_PREFIX}{name.upper()}"
            annotation: Any = Annotated[kind, Option(word, envvar=variable, help=text, rich_help_panel="Machine")]
            keyword = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(name, keyword, default=default, annotation=annotation))

        @functools.wraps(verb)
        def with_options(**given: Any) -> None:
            machine = _machine({name: given.pop(name) for name in names})
            verb(**given, machine=machine)

        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_options

    return decorate


compute_options = functools.partial(
    machine_options, "device", "precision", "micro_batch", "threads", "deterministic", "store", "cache"
)
"""Decorates a verb that computes; it may name further options."""


def _machine(given: dict[str, Any]) -> Machine:
    """Machine settings from options. Raises UserError naming the option."""
    # A verb without the option tracks nothing. Typer takes an empty variable for an absent one.
    if "mlflow" not in given or (given["mlflow"] is None and os.environ.get(f"{_PREFIX}MLFLOW") == ""):
        given["mlflow"] = ""
    try:
        machine = Machine.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        refused = settings_error(error, Machine.model_fields)
        raise UserError(f"--{'.'.join(refused.path).replace('_', '-')}: {refused.message}") from None
    if "cache" in given:
        # Keys hold what is pinned of downloads there, also in processes that this one starts.
        os.environ[f"{_PREFIX}CACHE"] = str(machine.cache)
    if machine.threads is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(machine.threads)
    return machine


def existing_store(machine: Machine) -> Store:
    """The store of earlier runs. Raises UserError if there is none."""
    if not machine.store.is_dir():
        raise UserError(f"there is no store {machine.store}; run a recipe first, or name another with --store")
    return Store(machine.store)


# What the shell completes.


def _recipe_names(incomplete: str) -> list[str]:
    local = [str(file) for file in sorted(Path().glob("*.toml"))]
    return [name for name in (*local, *shipped_names()) if name.startswith(incomplete)]


def run_names(context: Context, incomplete: str) -> list[str]:
    """Completes the name or id of a remembered run."""
    from reaemb_bench.core.runs import history

    folder = context.params.get("store") or os.environ.get(f"{_PREFIX}STORE") or Machine().store
    with contextlib.suppress(UserError):
        words = dict.fromkeys(word for run in history(Store(Path(folder))) for word in (run.name, run.id))
        return [word for word in words if word.startswith(incomplete)]
    return []


def _setting_names(context: Context, incomplete: str) -> list[str]:
    from reaemb_bench.core.plan import flatten

    with contextlib.suppress(UserError):
        recipe = load(context.params.get("recipe") or DEFAULT_RECIPE)
        paths = flatten({name: step.spec() for name, step in recipe.steps.items()})
        return [f"{path}=" for path in ("seeds", *paths) if path.startswith(incomplete)]
    return []


def _step_names(context: Context, incomplete: str) -> list[str]:
    settings = _setting_names(context, incomplete.partition(".")[0])
    paths = (setting.removesuffix("=").removesuffix(".use") for setting in settings)
    return [path for path in dict.fromkeys(paths) if path.startswith(incomplete) and f"{path}.use=" in settings]


def _with_known_ending(file: Path | None) -> Path | None:
    from reaemb_bench.report.render import check_ending

    if file is not None:
        check_ending(file)
    return file


RecipeName = Annotated[
    str, Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.", autocompletion=_recipe_names)
]
Sets = Annotated[
    Words, Option("--set", metavar="STEP.SETTING=VALUE", help="Change a setting.", autocompletion=_setting_names)
]
Drops = Annotated[
    Words, Option("--drop", metavar="STEP[.PART]", help="Take out a step or a part.", autocompletion=_step_names)
]
_LIMIT = "A smoke run: at most 100 users and items, two steps and epochs, one seed. Tables say so."
Limit = Annotated[bool, Option("--limit", help=_LIMIT)]
RunName = Annotated[
    str, Argument(metavar="RUN", help="Id of a run, the start of one, or its name.", autocompletion=run_names)
]
_RUNS = "Ids, their starts, names of runs, or recipes."
RunNames = Annotated[list[str], Argument(metavar="RUN...", help=_RUNS, autocompletion=run_names)]
Against = Annotated[
    str | None, Option(metavar="RUN", help="Show how the others differ from this run.", autocompletion=run_names)
]
Wide = Annotated[
    bool | None, Option("--wide/--narrow", help="All columns side by side, or only those that fit 80 characters.")
]
_ENDINGS = "Also write the tables, as .md, .tex, .html, .json, .csv or .svg."
TablesFile = Annotated[Path | None, Option("--out", metavar="FILE", help=_ENDINGS, callback=_with_known_ending)]
