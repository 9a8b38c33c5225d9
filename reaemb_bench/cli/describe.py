"""`reaemb-bench describe`: one component with all its settings."""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.markup import escape
from rich.table import Table

from reaemb_bench.cli.listing import check_kind
from reaemb_bench.cli.options import console
from reaemb_bench.component import Component, Step, picked_kind
from reaemb_bench.errors import RecipeError, UserError
from reaemb_bench.registry import find, kinds, names, nearest

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
    from reaemb_bench.pipeline import signature

    try:
        # The signature belongs to the class; no settings are needed to read it.
        wants, makes, _ = signature(step.model_construct(), name)
    except RecipeError as error:
        return f"cannot be planned: {error}\n"
    takes = ", ".join(each.__name__ for each in wants.values()) or "nothing"
    gives = ", ".join(each.__name__ for each in makes)
    leaks = ", looks at held-out data on purpose" if step.leaks else ""
    return f"takes {takes}; gives {gives}; sees {step.sees} data{leaks}; seed: {step.randomness}\n"


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
    pick = picked_kind(field.metadata)
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
