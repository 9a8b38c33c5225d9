"""The command line: `reaemb-bench VERB ...`. Each verb lives in a file of its own and imports what is slow late."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

import reaemb_bench
from reaemb_bench.cli import (
    ablate,
    audit,
    bench,
    card,
    check,
    compare,
    data,
    describe,
    diff,
    doctor,
    export,
    history,
    init,
    listing,
    neighbors,
    new,
    plan,
    push,
    report,
    run,
    store,
    sweep,
    ui,
)
from reaemb_bench.cli.options import in_words
from reaemb_bench.errors import UserError

_DEBUG = "--debug"
_INTERRUPTED = 130
_REFUSED = 2

app = typer.Typer(
    name="reaemb-bench",
    help="Compare ways of turning a language model into item embeddings for sequential recommendation.",
    epilog=f"{_DEBUG}, anywhere on the line, shows the traceback of an error.",
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("bench")(bench.bench)
app.command("ablate")(ablate.ablate)
app.command("sweep")(sweep.sweep)
app.command("compare")(compare.compare)
app.command("history")(history.history_of_runs)
app.command("diff")(diff.diff)
app.command("report")(report.report)
app.command("audit")(audit.audit)
app.command("export")(export.export)
app.command("neighbors")(neighbors.neighbors)
app.command("list")(listing.list_components)
app.command("describe")(describe.describe)
app.command("doctor")(doctor.doctor)
app.command("ui")(ui.ui)
app.command("push")(push.push)
app.command("init")(init.init)
app.command("new")(new.new)
data_app = typer.Typer(help="Data sets.")
data_app.command("prepare")(data.prepare)
data_app.command("check")(check.check)
data_app.command("describe")(card.describe)
app.add_typer(data_app, name="data")
store_app = typer.Typer(help="Results on disk.")
store_app.command("ls")(store.ls)
store_app.command("why")(store.why)
store_app.command("gc")(store.gc)
app.add_typer(store_app, name="store")


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
