"""The command line: `reaemb-bench VERB ...`. Each verb lives in a file of its own and imports what is slow late."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

import reaemb_bench
from reaemb_bench.cli import audit, components, data, doctor, experiments, export, mlflow, plan, results, run, store
from reaemb_bench.cli.options import in_words
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.settings_only import import_settings_only

_DEBUG = "--debug"
_INTERRUPTED = 130
_REFUSED = 2
_COMPUTING = frozenset({"run", "ablate", "sweep", "bench", "audit", "export", "push", "prepare"})
"""Verbs that may run steps, and so need components whole."""

_RUN, _READ, _PARTS, _TRUST = "Compute", "Read results", "Recipes and components", "Data, machine, trust"

app = typer.Typer(
    name="reaemb-bench",
    help="Compare ways of turning a language model into item embeddings for sequential recommendation.\n\n"
    "First steps: `reaemb-bench run quickstart`, then `history`, `report quickstart`, `ablate quickstart --drop crrl`.",
    epilog=f"{_DEBUG}, anywhere on the line, shows the traceback of an error.",
    pretty_exceptions_enable=False,
)
_VERBS: dict[str, dict[str, Callable[..., None]]] = {
    _RUN: {
        "run": run.run,
        "ablate": experiments.ablate,
        "sweep": experiments.sweep,
        "bench": experiments.bench,
        "plan": plan.plan,
    },
    _READ: {
        "history": results.history_of_runs,
        "compare": results.compare,
        "report": results.report,
        "diff": results.diff,
        "export": export.export,
        "neighbors": export.neighbors,
        "ui": mlflow.ui,
        "push": mlflow.push,
    },
    _PARTS: {
        "init": components.init,
        "new": components.new,
        "list": components.list_components,
        "describe": components.describe,
    },
    _TRUST: {"audit": audit.audit, "doctor": doctor.doctor},
}
for panel, verbs in _VERBS.items():
    for name, verb in verbs.items():
        app.command(name, rich_help_panel=panel)(verb)
data_app = typer.Typer(help="Read, check and describe data sets.")
data_app.command("check")(data.check)
data_app.command("prepare")(data.prepare)
data_app.command("describe")(data.describe)
app.add_typer(data_app, name="data", rich_help_panel=_TRUST)
store_app = typer.Typer(help="What lies in the store, why, and what nobody needs.")
store_app.command("ls")(store.ls)
store_app.command("why")(store.why)
store_app.command("gc")(store.gc)
app.add_typer(store_app, name="store", rich_help_panel=_TRUST)


@data_app.callback()
def _data() -> None:
    """Fetch and divide data sets."""


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(f"reaemb-bench {reaemb_bench.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Entry point: runs a verb and exits with its code."""
    arguments = [word for word in sys.argv[1:] if word != _DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    if not _COMPUTING & set(arguments[:2]):
        import_settings_only()
    code = _call(arguments, debug)
    if code == _INTERRUPTED:
        print("interrupted: finished steps are kept, the same command goes on from there", file=sys.stderr)
    sys.exit(code)


def _call(arguments: list[str], debug: bool) -> int:
    try:
        code = app(args=arguments, prog_name="reaemb-bench", standalone_mode=False)
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {in_words(error)}", file=sys.stderr)
        return _REFUSED
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except Exception as error:
        # Typer's usage errors have no public base class, but they all can say their message.
        if debug or not hasattr(error, "format_message"):
            raise
        print(f"error: {' '.join(error.format_message().split())} (reaemb-bench --help tells more)", file=sys.stderr)
        return _REFUSED
    return code if isinstance(code, int) else 0
