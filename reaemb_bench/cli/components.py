"""Verbs about components and recipes: `list` and `describe` them, start your own with `new` and `init`."""

from __future__ import annotations

import inspect
import keyword
import types
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from rich.markup import escape
from typer import Argument, Option

from reaemb_bench.cli.options import DEFAULT_RECIPE, Words, plain_table, say, show
from reaemb_bench.core.errors import RecipeError, UserError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.table import Table

    from reaemb_bench.core.component import Component, Step

_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("min_length", "at least"), ("max_length", "at most"))


def _kind_names(incomplete: str) -> list[str]:
    from reaemb_bench.core.registry import kinds

    return [kind for kind in kinds() if kind.startswith(incomplete)]


def _component_names(incomplete: str) -> list[str]:
    from reaemb_bench.core.registry import kinds, names

    return sorted({name for kind in kinds() for name in names(kind) if name.startswith(incomplete)})


def list_components(
    kind: Annotated[str | None, Argument(help="Components of this kind alone.", autocompletion=_kind_names)] = None,
) -> None:
    """List the components that a recipe can name, by kind.

    Examples:
    reaemb-bench list
    reaemb-bench list loss
    """
    from reaemb_bench.core.registry import kinds, names, summary

    if kind is not None:
        _check_kind(kind)
    table = plain_table("kind", "name", "what it is", no_wrap=("kind", "name"))
    for shown in (kind,) if kind else kinds():
        for name in names(shown):
            table.add_row(shown, name, escape(summary(shown, name)))
    show(table)


def _check_kind(kind: str) -> None:
    """Raise UserError if no kind of component has this name."""
    from reaemb_bench.core.registry import kinds, nearest

    if kind not in kinds():
        raise UserError(f"no kind of component is called '{kind}'.{nearest(kind, kinds())} Known: {', '.join(kinds())}")


def describe(
    name: Annotated[
        str | None,
        Argument(
            metavar="[NAME]",
            help="A component, a step of the default recipe, or file.py:Class; without it, all kinds.",
            autocompletion=_component_names,
        ),
    ] = None,
    kind: Annotated[str | None, Option(help="Its kind, if several have the name.", autocompletion=_kind_names)] = None,
) -> None:
    """Describe a component: what it does, its settings with type and default; without a name, list the kinds.

    Examples:
    reaemb-bench describe
    reaemb-bench describe soft-target
    reaemb-bench describe none --kind reducer
    reaemb-bench describe my_loss.py:MyLoss
    """
    from reaemb_bench.core.component import Step
    from reaemb_bench.core.registry import find, kinds, names

    if kind is not None:
        _check_kind(kind)
    if name is None:
        table = plain_table("kind", "components", no_wrap=("kind",))
        for shown in (kind,) if kind else kinds():
            table.add_row(shown, ", ".join(names(shown)))
        show(table)
        return
    component, found_in = _resolve(name, kind)
    for shown in found_in:
        class_ = find(shown, component)
        title = f"[bold]{escape(component)}[/] ({shown}), {escape(f'{class_.__module__}:{class_.__qualname__}')}"
        show(title)
        say(f"\n{inspect.getdoc(class_) or ''}\n")
        if issubclass(class_, Step):
            say(_artefacts(class_, component))
        show(_settings(class_), "")


def _resolve(name: str, kind: str | None) -> tuple[str, list[str]]:
    """The component that is meant, and the kinds that have one of this name. Raises UserError."""
    from reaemb_bench.core.recipe import locate, read_toml
    from reaemb_bench.core.registry import kinds, names, nearest

    if kind is not None:
        return name, [kind]
    if ".py:" in name:
        return name, ["step"]
    if having := [shown for shown in kinds() if name in names(shown)]:
        return name, having
    recipe = read_toml(locate(DEFAULT_RECIPE))
    if name in recipe["steps"]:
        use = recipe[name]["use"]
        say(f"{name} is a step of {DEFAULT_RECIPE}; its component is {use}:\n")
        return use, ["step"]
    known = [*_component_names(""), *recipe["steps"]]
    raise UserError(f"no component is called '{name}'.{nearest(name, known)} `reaemb-bench list` shows all")


def _artefacts(step: type[Step], name: str) -> str:
    """A line about what a step takes and gives."""
    from reaemb_bench.core.plan import signature

    try:
        # The signature belongs to the class; no settings are needed to read it.
        wants, makes, _ = signature(step.model_construct(), name)
    except RecipeError as error:
        return f"cannot be planned: {error}\n"
    takes = ", ".join(artefact.__name__ for artefact in wants.values()) or "nothing"
    gives = ", ".join(artefact.__name__ for artefact in makes)
    leaks = ", looks at held-out data on purpose" if step.leaks else ""
    return f"takes {takes}; gives {gives}; sees {step.data_access} data{leaks}; seed: {step.randomness}\n"


def _settings(component: type[Component]) -> Table | str:
    if not component.model_fields:
        return "It has no settings."
    table = plain_table("setting", "type", "default", "meaning")
    for name, field in component.model_fields.items():
        table.add_row(*map(escape, (name, _type(field), _default(field), field.description or "")))
    return table


def _type(field: FieldInfo) -> str:
    from reaemb_bench.core.registry import pick_of

    if (pick := pick_of(field.metadata)) is not None:
        return f"list of {pick.kind}s" if pick.many else f"a {pick.kind}"
    bounds = [
        f"{sign} {getattr(bound, name)}" for bound in field.metadata for name, sign in _BOUNDS if hasattr(bound, name)
    ]
    return ", ".join([_type_name(field.annotation), *bounds])


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " | ".join(repr(choice) for choice in get_args(annotation))
    if isinstance(annotation, types.UnionType):
        return " | ".join(map(_type_name, get_args(annotation)))
    if annotation is type(None):
        return "nothing"
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("pathlib.", "")


def _default(field: FieldInfo) -> str:
    from pydantic_core import PydanticUndefined

    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True) if field.default_factory is None else field.default
    if value is PydanticUndefined:
        return "computed"
    return "" if value is None else str(getattr(value, "use", value))


_MOVIELENS = {"use": "movielens-100k"}
_NO_FILTER = (
    '# Nothing is left out. Sparse data may want: filters = [{ use = "k-core", user_minimum = 5, item_minimum = 5 }]'
)
_FIVE_CORE = """# Users and items with fewer than five interactions are left out, repeatedly until all have five.
filters = [{ use = "k-core", user_minimum = 5, item_minimum = 5 }]"""


def init(
    file: Annotated[Path, Argument(metavar="FILE", help="The recipe to write.")] = Path("my_recipe.toml"),
    data: Annotated[list[Path] | None, Option(help="Your files of interactions and items, or their folder.")] = None,
    columns: Annotated[Words, Option("--column", metavar="ROLE=NAME", help="As for `data check`.")] = None,
) -> None:
    """Write a commented recipe: ReaEmb on your files, or on MovieLens-100K if you name none.

    Examples:
    reaemb-bench init
    reaemb-bench init shop.toml --data orders.csv --data products.csv --column user=customer
    """
    import tomli_w

    from reaemb_bench.core.files import write_new

    if file.suffix != ".toml":
        raise UserError(f"{file}: a recipe's name ends with .toml")
    if columns and not data:
        raise UserError("--column goes with --data, the files whose columns it names")
    text = _scaffold("recipe.toml.txt").format(
        title=f"ReaEmb on {'my data' if data else 'MovieLens-100K'}",
        file=file,
        filters=_FIVE_CORE if data else _NO_FILTER,
        source=tomli_w.dumps({"prepare": {"source": _source(data, columns or []) if data else _MOVIELENS}}),
    )
    write_new(file, text.encode())
    say(f"written: {file}")
    say(f"next: reaemb-bench plan {file}, then reaemb-bench run {file}")


def _source(data: list[Path], columns: list[str]) -> dict[str, object]:
    """The table `[prepare.source]` that reads these files, with absolute paths, as the recipe may run from any folder.

    Raises UserError if a file cannot be read or a column cannot be told.
    """
    from reaemb_bench.data.check import named_columns, open_files, source_table

    files = open_files(data, named_columns(columns))
    for role in ("interactions", "items"):
        if getattr(files, role) is None:
            raise UserError(f"--data: a recipe needs a file of interactions and one of items; {role} are missing")
    table = source_table(files)
    return {**table, **{role: str(Path(table[role]).resolve()) for role in ("interactions", "items")}}


_SET_WITH = {
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
    kind: Annotated[str, Argument(metavar="KIND", help=f"{', '.join(_SET_WITH)}.", autocompletion=_kind_names)],
    name: Annotated[str, Argument(metavar="NAME", help="Its name, such as my_loss.")],
    folder: Annotated[Path, Option("--out", "--folder", help="Folder of the two files.")] = Path(),
) -> None:
    """Write NAME.py with a working component of a kind, and test_NAME.py with its test, to change from there.

    Examples:
    reaemb-bench new loss my_loss
    reaemb-bench new step my_step --folder plugins
    """
    from reaemb_bench.core.files import write_new

    _check_kind(kind)
    if kind not in _SET_WITH:
        raise UserError(
            f"there is no example of a {kind} to start from; `reaemb-bench describe` names the files of built-in ones. "
            f"Examples: {', '.join(_SET_WITH)}"
        )
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"'{name}' is not a name for a Python file; use letters, digits and underscores: my_{kind}")
    class_name = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    example = f"from reaemb_bench.cli.scaffolds.{kind} import Example"
    test = _scaffold(f"{kind}_test.py").replace(example, f"from {name} import {class_name}")
    texts = {
        folder / f"{name}.py": _scaffold(f"{kind}.py").replace("class Example(", f"class {class_name}("),
        folder / f"test_{name}.py": test.replace("Example", class_name),
    }
    for file in texts:
        if file.exists():
            raise UserError(f"{file} exists and is left as it is; choose another name")
    for file, text in texts.items():
        write_new(file, text.encode())
        say(f"written: {file}")
    say(f"test it: python -m pytest {folder / f'test_{name}.py'}")
    say(f"use it: reaemb-bench run --set '{_SET_WITH[kind].format(folder / f'{name}.py:{class_name}')}'")


def _scaffold(file: str) -> str:
    return resources.files("reaemb_bench.cli.scaffolds").joinpath(file).read_text(encoding="utf-8")
