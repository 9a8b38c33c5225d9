"""`reaemb-bench init`: a commented recipe to start from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import tomli_w
import typer

from reaemb_bench.cli.options import console
from reaemb_bench.errors import UserError
from reaemb_bench.files import write_new

_USUAL_SOURCE = {"use": "movielens-100k"}
_NO_FILTER = (
    '# Nothing is left out. Sparse data may want: filters = [{ use = "k-core", user_minimum = 5, item_minimum = 5 }]'
)
_FIVE_CORE = """# Users and items with fewer than five interactions are left out, again and again until none is.
filters = [{ use = "k-core", user_minimum = 5, item_minimum = 5 }]"""


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recipe to write.")] = Path("my_recipe.toml"),
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", metavar="PATH", help="Your files of interactions and items, or their folder."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="ROLE=NAME", help="As for `data check`: what cannot be told from the names."),
    ] = None,
) -> None:
    """Write a commented recipe: ReaEmb on your files, or on MovieLens-100K where you name none."""
    if file.suffix != ".toml":
        raise UserError(f"{file}: a recipe's name ends with .toml")
    if columns and not data:
        raise UserError("--column goes with --data, the files whose columns it names")
    write_new(file, commented_recipe(file, data or [], columns or []).encode())
    screen = console()
    screen.print(f"written: {file}", markup=False, highlight=False)
    screen.print(f"next: reaemb-bench plan {file}, then reaemb-bench run {file}", markup=False, highlight=False)


def commented_recipe(file: Path, data: list[Path], columns: list[str]) -> str:
    """The text of the recipe. Raises UserError where the files cannot be read or a column cannot be told."""
    source = _source(data, columns) if data else _USUAL_SOURCE
    template = resources.files("reaemb_bench.scaffolds").joinpath("recipe.toml.txt").read_text(encoding="utf-8")
    return template.format(
        title=f"ReaEmb on {'my data' if data else 'MovieLens-100K'}",
        file=file,
        filters=_FIVE_CORE if data else _NO_FILTER,
        source=tomli_w.dumps({"prepare": {"source": source}}),
    )


def _source(data: list[Path], columns: list[str]) -> dict[str, object]:
    from reaemb_bench.audit.files import named_columns, open_files, source_table

    files = open_files(data, named_columns(columns))
    for missing in ("interactions", "items"):
        if getattr(files, missing) is None:
            raise UserError(
                f"--data: a recipe needs a file of interactions and one of items; there is none of {missing}"
            )
    made = source_table(files)
    # The recipe may be run from any folder.
    return {
        **made,
        "interactions": str(Path(made["interactions"]).resolve()),
        "items": str(Path(made["items"]).resolve()),
    }
