"""Verbs about components and recipes: `list` and `describe` them, start your own with `new` and `init`."""

from __future__ import annotations

import inspect
import keyword
import tomllib
import types
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from rich.markup import escape
from typer import Argument, Option

from reaemb_bench.cli.options import DEFAULT_RECIPE, Words
from reaemb_bench.cli.screen import plain_table, say, show
from reaemb_bench.core.component import Step
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.files import write_new
from reaemb_bench.core.recipe import locate, read_toml
from reaemb_bench.core.registry import find, kinds, names, nearest, pick_of, summary

_BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("min_length", "at least"), ("max_length", "at most"))


def _kind_names(incomplete: str) -> list[str]:
    return [kind for kind in kinds() if kind.startswith(incomplete)]


def _component_names(incomplete: str) -> list[str]:
    return sorted({name for kind in kinds() for name in names(kind) if name.startswith(incomplete)})


def _known_kinds(kind: str | None) -> tuple[str, ...]:
    """This kind alone, or all if it is None. Raises UserError if no kind of component has this name."""
    if kind is not None and kind not in kinds():
        raise UserError(f"no kind of component is called '{kind}'.{nearest(kind, kinds())} Known: {', '.join(kinds())}")
    return kinds() if kind is None else (kind,)


def list_(
    kind: Annotated[str | None, Argument(help="Components of this kind alone.", autocompletion=_kind_names)] = None,
) -> None:
    """List the components that a recipe can name, by kind.

    Examples:
    reaemb-bench list
    reaemb-bench list loss
    reaemb-bench list source
    """
    if kind == "source":
        # What a data set costs is told by the sources themselves; they are imported without torch.
        table = plain_table("name", "what it is", "download", "minutes", "licence", no_wrap=("name",))
        for name in names(kind):
            about = None
            # What a plug-in is that cannot be imported, `summary` says.
            with suppress(UserError):
                about = getattr(find(kind, name), "about", None)
            terms = (about.download or "none", about.minutes, about.licence) if about else ("none", "", "")
            table.add_row(*map(escape, (name, summary(kind, name), *terms)))
        show(table)
        say("\nminutes: about, to download at 10 MB/s and to read on one core")
        return
    table = plain_table("kind", "name", "what it is", no_wrap=("kind", "name"))
    for shown in _known_kinds(kind):
        for name in names(shown):
            table.add_row(shown, name, escape(summary(shown, name)))
    show(table)


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
    from reaemb_bench.core.plan import signature

    shown_kinds = _known_kinds(kind)
    if name is None:
        table = plain_table("kind", "components", no_wrap=("kind",))
        for shown in shown_kinds:
            table.add_row(shown, ", ".join(names(shown)))
        show(table)
        return
    if kind is None:
        shown_kinds = ("step",) if ".py:" in name else tuple(shown for shown in kinds() if name in names(shown))
    if not shown_kinds:
        recipe = read_toml(locate(DEFAULT_RECIPE))
        if name not in recipe["steps"]:
            hint = nearest(name, [*_component_names(""), *recipe["steps"]])
            raise UserError(f"no component is called '{name}'.{hint} `reaemb-bench list` shows all")
        step, name, shown_kinds = name, str(recipe[name]["use"]), ("step",)
        say(f"{step} is a step of {DEFAULT_RECIPE}; its component is {name}:\n")
    for shown in shown_kinds:
        class_ = find(shown, name)
        show(f"[bold]{escape(name)}[/] ({shown}), {escape(f'{class_.__module__}:{class_.__qualname__}')}")
        say(f"\n{inspect.getdoc(class_) or ''}\n")
        if issubclass(class_, Step):
            try:
                # The signature belongs to the class; no settings are needed to read it.
                wants, makes, _ = signature(class_.model_construct(), name)
            except RecipeError as error:
                say(f"cannot be planned: {error}\n")
            else:
                takes = ", ".join(artefact.__name__ for artefact in wants.values()) or "nothing"
                gives = ", ".join(artefact.__name__ for artefact in makes)
                data = f"{class_.data_access} data{', looks at held-out data on purpose' if class_.leaks else ''}"
                say(f"takes {takes}; gives {gives}; sees {data}; seed: {class_.randomness}\n")
        table = plain_table("setting", "type", "default", "meaning")
        for setting, field in class_.model_fields.items():
            table.add_row(*map(escape, (setting, _type(field), _default(field), field.description or "")))
        show(table if class_.model_fields else "It has no settings.", "")


def _type(field: FieldInfo) -> str:
    if (pick := pick_of(field.metadata)) is not None:
        return f"list of {pick.kind}s" if pick.many else f"a {pick.kind}"
    limits = ((mark, name, sign) for mark in field.metadata for name, sign in _BOUNDS)
    bounds = [f"{sign} {getattr(mark, name)}" for mark, name, sign in limits if hasattr(mark, name)]
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
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "computed"
    return "" if field.default is None else str(getattr(field.default, "use", field.default))


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

    if file.suffix != ".toml":
        raise UserError(f"{file}: a recipe's name ends with .toml")
    if columns and not data:
        raise UserError("--column goes with --data, the files whose columns it names")
    source: dict[str, Any] = {"use": "movielens-100k"}
    if data:
        from reaemb_bench.data.check import named_columns, open_files, source_table

        files = open_files(data, named_columns(columns or []))
        for role in ("interactions", "items"):
            if getattr(files, role) is None:
                raise UserError(f"--data: a recipe needs a file of interactions and one of items; {role} are missing")
        source = source_table(files)
        # The recipe may run from any folder.
        source |= {role: str(Path(source[role]).resolve()) for role in ("interactions", "items")}
    text = _scaffold("recipe.toml.txt").format(
        title=f"ReaEmb on {'my data' if data else 'MovieLens-100K'}",
        file=file,
        filters=_FIVE_CORE if data else _NO_FILTER,
        source=tomli_w.dumps({"prepare": {"source": source}}),
    )
    write_new(file, text.encode())
    say(f"written: {file}")
    say(f"next: reaemb-bench plan {file}, then reaemb-bench run {file}")


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
    from jinja2 import Template

    _known_kinds(kind)
    if kind not in _SET_WITH:
        raise UserError(
            f"there is no example of a {kind} to start from; `reaemb-bench describe` names the files of built-in ones. "
            f"Examples: {', '.join(_SET_WITH)}"
        )
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"'{name}' is not a name for a Python file; use letters, digits and underscores: my_{kind}")
    class_name = "".join(word[:1].upper() + word[1:] for word in name.split("_"))
    component, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for file in (component, test):
        if file.exists():
            raise UserError(f"{file} exists and is left as it is; choose another name")
    scaffolds = tomllib.loads(_scaffold("components.toml"))
    for file, template in ((component, "component_file"), (test, "test_file")):
        text = Template(scaffolds[template], trim_blocks=True).render(scaffolds[kind], module=name)
        write_new(file, f"{text.replace('Example', class_name).rstrip()}\n".encode())
        say(f"written: {file}")
    say(f"test it: python -m pytest {test}")
    say(f"use it: reaemb-bench run --set '{_SET_WITH[kind].format(f'{component}:{class_name}')}'")


def _scaffold(file: str) -> str:
    return resources.files("reaemb_bench.cli").joinpath("scaffolds", file).read_text(encoding="utf-8")
