"""`reaemb-bench list`: which components there are."""

from __future__ import annotations

import inspect
import keyword
import types
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import tomli_w
import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.markup import escape
from rich.table import Table

from reaemb_bench.cli.options import component_kinds, console
from reaemb_bench.core.component import Component, Step
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.files import write_new
from reaemb_bench.core.registry import find, kinds, names, nearest, pick_of, summary


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
            table.add_row(each, name, summary(each, name))
    console().print(table)


def check_kind(kind: str) -> None:
    """Raise UserError where no kind of component has this name."""
    if kind not in kinds():
        raise UserError(f"no kind of component is called '{kind}'.{nearest(kind, kinds())} Known: {', '.join(kinds())}")


# `reaemb-bench describe`: one component with all its settings.


_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("min_length", "at least"), ("max_length", "at most"))


def describe(
    name: Annotated[str, typer.Argument(help="Name of a component, or file.py:Class.")],
    kind: Annotated[str | None, typer.Option(help="Its kind, where several kinds have this name.")] = None,
) -> None:
    """Describe a component: what it does, its settings with type and default."""
    if kind is not None:
        check_kind(kind)
    screen = console()
    for each in _kinds_of(name, kind):
        made_by = find(each, name)
        screen.print(f"[bold]{escape(name)}[/] ({each}), {made_by.__module__}:{made_by.__qualname__}")
        screen.print(f"\n{inspect.getdoc(made_by) or ''}\n", markup=False, highlight=False)
        if issubclass(made_by, Step):
            screen.print(_chain(made_by, name), markup=False, highlight=False)
        screen.print(_settings(made_by))
        screen.print()


def _kinds_of(name: str, kind: str | None) -> list[str]:
    if kind is not None:
        return [kind]
    if ".py:" in name:
        return ["step"]
    having = [each for each in kinds() if name in names(each)]
    if not having:
        known = sorted({word for each in kinds() for word in names(each)})
        raise UserError(f"no component is called '{name}'.{nearest(name, known)} `reaemb-bench list` shows all")
    return having


def _chain(step: type[Step], name: str) -> str:
    from reaemb_bench.core.plan import signature

    try:
        # The signature belongs to the class; no settings are needed to read it.
        wants, makes, _ = signature(step.model_construct(), name)
    except RecipeError as error:
        return f"cannot be planned: {error}\n"
    takes = ", ".join(each.__name__ for each in wants.values()) or "nothing"
    gives = ", ".join(each.__name__ for each in makes)
    leaks = ", looks at held-out data on purpose" if step.leaks else ""
    return f"takes {takes}; gives {gives}; sees {step.data_access} data{leaks}; seed: {step.randomness}\n"


def _settings(component: type[Component]) -> Table | str:
    if not component.model_fields:
        return "It has no settings."
    table = Table(box=None, pad_edge=False)
    for heading in ("setting", "type", "default", "meaning"):
        table.add_column(heading)
    for name, field in component.model_fields.items():
        table.add_row(*(escape(text) for text in (name, _type(field), _default(field), field.description or "")))
    return table


def _type(field: FieldInfo) -> str:
    pick = pick_of(field.metadata)
    if pick is not None:
        return f"list of {pick.kind}s" if pick.many else f"a {pick.kind}"
    bounds = [
        f"{sign} {getattr(each, name)}" for each in field.metadata for name, sign in _BOUNDS if hasattr(each, name)
    ]
    return ", ".join([_in_words(field.annotation), *bounds])


def _in_words(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(repr(each) for each in get_args(annotation))
    if isinstance(annotation, types.UnionType):
        return " | ".join(_in_words(each) for each in get_args(annotation))
    if annotation is type(None):
        return "nothing"
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("pathlib.", "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True) if field.default_factory is None else field.default
    if value is PydanticUndefined:
        return "computed"
    return value.use if isinstance(value, Component) else "" if value is None else str(value)


# `reaemb-bench init`: a commented recipe to start from.


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
    template = resources.files("reaemb_bench.cli.scaffolds").joinpath("recipe.toml.txt").read_text(encoding="utf-8")
    return template.format(
        title=f"ReaEmb on {'my data' if data else 'MovieLens-100K'}",
        file=file,
        filters=_FIVE_CORE if data else _NO_FILTER,
        source=tomli_w.dumps({"prepare": {"source": source}}),
    )


def _source(data: list[Path], columns: list[str]) -> dict[str, object]:
    from reaemb_bench.data.check import named_columns, open_files, source_table

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


# `reaemb-bench new`: a component of one's own, with its test, to change from there.


_PLACES = {
    "step": "NAME_OF_STEP.use={}",
    "loss": "lrcl.loss={}",
    "reward": "crrl.reward={}",
    "advantage": "crrl.advantage={}",
    "pooling": "llm.pooling={}",
    "reducer": "reduce.reducer={}",
    "objective": "train.objective={}",
    "floor": 'floors.floors=["{}"]',
}
"""Kind -> what `--set` takes to put the component into a recipe that has the usual steps."""


def new(
    kind: Annotated[str, typer.Argument(help=f"What it is: {', '.join(_PLACES)}.", autocompletion=component_kinds)],
    name: Annotated[str, typer.Argument(help="Its name, such as my_loss.")],
    folder: Annotated[Path, typer.Option(help="Where the two files go.")] = Path(),
) -> None:
    """Write NAME.py with a working component of a kind, and test_NAME.py with its test."""
    check_kind(kind)
    if kind not in _PLACES:
        raise UserError(
            f"there is no example of a {kind} to start from; `reaemb-bench describe` names the files of those we ship. "
            f"Examples: {', '.join(_PLACES)}"
        )
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"'{name}' is no name for a Python file; use letters, digits and underscores: my_{kind}")
    made = f"{name}.py:{class_name(name)}"
    files = {folder / f"{name}.py": component(kind, name), folder / f"test_{name}.py": test(kind, name)}
    for file in files:
        if file.exists():
            raise UserError(f"{file} exists and is left as it is; choose another name")
    for file, text in files.items():
        write_new(file, text.encode())
        _say(f"written: {file}")
    _say(f"test it: python -m pytest {folder / f'test_{name}.py'}")
    _say(f"use it: reaemb-bench run --set '{_PLACES[kind].format(folder / made)}'")


def class_name(name: str) -> str:
    """`my_loss` as a class is called: `MyLoss`."""
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def component(kind: str, name: str) -> str:
    """The text of a working component of a kind under its own class name."""
    return _read(f"{kind}.py").replace("class Example(", f"class {class_name(name)}(")


def test(kind: str, name: str) -> str:
    """The text of the component's test."""
    made = class_name(name)
    example = f"from reaemb_bench.cli.scaffolds.{kind} import Example"
    return _read(f"{kind}_test.py").replace(example, f"from {name} import {made}").replace("Example", made)


def _read(file: str) -> str:
    return resources.files("reaemb_bench.cli.scaffolds").joinpath(file).read_text(encoding="utf-8")


def _say(line: str) -> None:
    console().print(line, markup=False, highlight=False, soft_wrap=True)
