"""`reaemb-bench list`: which components there are."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer
from rich.table import Table

from reaemb_bench.cli.options import component_kinds, console
from reaemb_bench.errors import UserError
from reaemb_bench.registry import find, kinds, names, nearest


def list_components(
    kind: Annotated[
        str | None, typer.Argument(help="Only components of this kind.", autocompletion=component_kinds)
    ] = None,
) -> None:
    """List the components that a recipe can name, by kind."""
    if kind is not None:
        check_kind(kind)
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "name", "what it is"):
        table.add_column(heading, no_wrap=heading != "what it is")
    for each in (kind,) if kind else kinds():
        for name in names(each):
            table.add_row(each, name, _first_line(each, name))
    console().print(table)


def check_kind(kind: str) -> None:
    """Raise UserError where no kind of component has this name."""
    if kind not in kinds():
        raise UserError(f"no kind of component is called '{kind}'.{nearest(kind, kinds())} Known: {', '.join(kinds())}")


def _first_line(kind: str, name: str) -> str:
    try:
        return (inspect.getdoc(find(kind, name)) or "").partition("\n")[0]
    except UserError as error:
        return f"cannot be imported: {error}"
