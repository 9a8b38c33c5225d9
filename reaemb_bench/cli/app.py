"""The command line: `reaemb-bench VERB ...`."""

from __future__ import annotations

import importlib
import inspect
import io
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from itertools import takewhile
from typing import Annotated

import typer
from rich.markup import escape

import reaemb_bench
from reaemb_bench.cli import components, data, doctor, experiments, mlflow, plan, results, run, store, watch
from reaemb_bench.cli.screen import busy, in_words
from reaemb_bench.core.errors import UserError, is_out_of_memory, reason_of
from reaemb_bench.core.settings_only import forget_placeholders, import_settings_only
from reaemb_bench.core.text import printable

_DEBUG = "--debug"
_INTERRUPTED = 130
_REFUSED = 2
_COMPUTING = frozenset({"run", "ablate", "sweep", "bench", "audit", "export", "push", "prepare", "--compute"})
"""Words of commands that may run steps, and so need components with their networks."""
_PLAIN = {
    r"Input should be a valid integer.*": "give a whole number",
    r"Input should be a valid number.*": "give a number",
    r"Input should be less than or equal to": "give a number of at most",
    r"Input should be greater than or equal to": "give a number of at least",
}
"""What Typer's messages say -> in plain English."""

_TRUST = "Data, machine, trust"
_VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    "Compute": (run.run, experiments.ablate, experiments.sweep, experiments.bench, plan.plan, watch.watch),
    "Read results": (
        *(results.history, results.compare, results.report, results.diff, experiments.leaderboard),
        *(results.export, results.neighbors, mlflow.ui, mlflow.push),
    ),
    "Recipes and components": (components.init, components.new, components.list_, components.describe),
    _TRUST: (doctor.audit, doctor.doctor),
}
_GROUPS: dict[str, tuple[str, tuple[Callable[..., None], ...]]] = {
    "data": ("Read, check and describe data sets.", (data.check, data.prepare, data.describe)),
    "store": ("List, explain and delete results.", (store.ls, store.why, store.gc)),
}

app = typer.Typer(
    name="reaemb-bench",
    help="Compare ways of turning a language model into item embeddings for sequential recommendation.\n\n"
    "First steps: `reaemb-bench run quickstart`, then `history`, `report quickstart`, `ablate quickstart --drop crrl`.",
    epilog=f"{_DEBUG}, anywhere on the line, shows the traceback of an error.",
    pretty_exceptions_enable=False,
)


def _register(group: typer.Typer, verbs: tuple[Callable[..., None], ...], panel: str | None = None) -> None:
    """Add verbs; the part of a docstring after `Examples:` stands below the verb's options."""
    for verb in verbs:
        text, _, examples = inspect.cleandoc(verb.__doc__ or "").partition("\n\nExamples:\n")
        paragraphs = escape("\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n")))
        name, below = verb.__name__.removesuffix("_"), escape(f"Examples:\n{examples}")
        group.command(name, help=paragraphs, epilog=below, rich_help_panel=panel)(verb)


for _panel, _verbs in _VERBS.items():
    _register(app, _verbs, _panel)
for _name, (_help, _verbs) in _GROUPS.items():
    _group = typer.Typer(help=_help)
    _register(_group, _verbs)
    app.add_typer(_group, name=_name, rich_help_panel=_TRUST)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"reaemb-bench {reaemb_bench.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Entry point: runs a verb and exits with its code."""
    if (newest := importlib.import_module(__name__)).main is not main:
        newest.main()
    arguments = [word for word in sys.argv[1:] if word != _DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    if not _COMPUTING & set(arguments):
        import_settings_only()
    elif forget_placeholders():
        # An earlier verb of this process had components without networks; all modules are loaded anew, this one too.
        importlib.import_module(__name__).main()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or file that does not take UTF-8 gets a question mark for what it cannot show.
        sys.stdout.reconfigure(errors="replace")
    try:
        words = takewhile(lambda word: not word.startswith("-"), arguments)
        computes = bool(_COMPUTING & set(arguments[:2])) and "--help" not in arguments
        with busy(" ".join(("reaemb-bench", *words))) if computes else nullcontext():
            code = app(args=arguments, prog_name="reaemb-bench", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except Exception as error:
        line = in_words(error) if isinstance(error, UserError) else printable(_one_line(error))
        if not isinstance(error, UserError) and (debug or not line):
            raise
        if debug:
            traceback.print_exc()
        print(f"error: {line}", file=sys.stderr)
        code = _REFUSED
    if code == _INTERRUPTED:
        print("interrupted: finished steps are kept, the same command goes on from there", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _one_line(error: Exception) -> str:
    """A usage error, lack of memory or too large a number in one line; empty for any other error."""
    # Typer's usage errors have no public base class, but all of them format their message.
    if hasattr(error, "format_message"):
        message = " ".join(error.format_message().split())
        for theirs, plain in _PLAIN.items():
            message = re.sub(theirs, plain, message)
        return f"{message} (reaemb-bench --help tells more)"
    if is_out_of_memory(error):
        return f"out of memory ({reason_of(error)}); lower --micro-batch or batch sizes, or close other programs"
    if isinstance(error, OverflowError) or "Overflow when unpacking" in str(error):
        return f"a number is too large ({reason_of(error)}); --debug shows where it is used"
    return ""
