"""Where names become components: built-ins of the catalogue, entry points of installed packages, and `file.py:Class`.

Nothing is imported before it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import core_schema

from reaemb_bench.catalogue import CATALOGUE, PROTOCOLS
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.files import real_path
from reaemb_bench.core.plugins import load_plugin, module_code
from reaemb_bench.core.settings_only import placeholders


def kinds() -> tuple[str, ...]:
    """The kinds of component, in the order of the pipeline."""
    return tuple(CATALOGUE)


@cache
def names(kind: str) -> dict[str, str]:
    """Name -> `module:Class` of all components of a kind: the built-ins, then those of installed packages."""
    classes = {name: path for name, (path, _) in CATALOGUE[kind].items()}
    for entry in importlib.metadata.entry_points(group=f"reaemb_bench.{kind}"):
        if entry.name in classes:
            raise UserError(
                f"an installed package declares {kind} '{entry.name}' as {entry.value}, "
                f"but the name is taken by {classes[entry.name]}; rename it there"
            )
        classes[entry.name] = entry.value
    return classes


def summary(kind: str, name: str) -> str:
    """One line that says what a component is; built-ins are not imported for it."""
    if name in CATALOGUE[kind]:
        return CATALOGUE[kind][name][1]
    try:
        return (inspect.getdoc(find(kind, name)) or "").partition("\n")[0]
    except UserError as error:
        return f"cannot be imported: {error}"


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def find(kind: str, name: str) -> type[Component]:
    """The component class that `name` stands for.

    Raises RecipeError if there is no such component, naming the nearest one, or if the class is not of that kind.
    """
    known = names(kind)
    if name in known:
        module, _, attribute = known[name].partition(":")
        try:
            with placeholders():
                component = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise RecipeError(f"{kind} '{name}' cannot be imported from {known[name]}: {error}") from error
    elif ".py:" in name:
        file, _, attribute = name.rpartition(":")
        plugin = load_plugin(_plugin_file(name)).module
        component = getattr(plugin, attribute, None)
        if component is None:
            hint = nearest(attribute, vars(plugin))
            raise RecipeError(f"the file {file} has no class '{attribute}';{hint} Add it there, or name another")
    else:
        raise RecipeError(f"no {kind} is called '{name}'.{nearest(name, known)} Known: {', '.join(sorted(known))}")
    if not (isinstance(component, type) and issubclass(component, Component)):
        raise RecipeError(f"{name} is not a component: derive it from reaemb_bench.Component")
    if kind in PROTOCOLS:
        module, _, protocol = PROTOCOLS[kind].partition(":")
        with placeholders():
            methods = vars(getattr(importlib.import_module(module), protocol))
        for method in (name for name, value in methods.items() if callable(value) and name[0] != "_"):
            if not callable(getattr(component, method, None)):
                raise RecipeError(f"{name} is not a {kind}: it lacks the method '{method}'; add it, or name another")
    return component


def build(kind: str, value: Any) -> Component:
    """A component of `kind` from a recipe value: a name, a table with `use`, or a component that is already built.

    None stands for the kind's component `none`, if it has one: that is how `--drop step.part` works.
    Raises RecipeError with the path inside the table.
    """
    if isinstance(value, Component):
        return value
    if value is None:
        if "none" not in names(kind):
            raise RecipeError(f"a {kind} is required here and cannot be dropped")
        value = "none"
    settings = dict(value) if isinstance(value, dict) else {"use": value}
    name = settings.pop("use", None)
    if not isinstance(name, str):
        raise RecipeError(f'names no {kind}: add use = "...". Known: {", ".join(sorted(names(kind)))}')
    component_class = find(kind, name)
    try:
        component = component_class.model_validate(settings)
    except ValidationError as error:
        raise settings_error(error, component_class.model_fields) from None
    component._use = name
    # A plug-in's code: sha256 by file or module, and the version of the distribution that declares it.
    if name not in names(kind):
        component._code = dict(load_plugin(_plugin_file(name)).code)
    elif name not in CATALOGUE[kind]:
        entries = importlib.metadata.entry_points(group=f"reaemb_bench.{kind}")
        entry = next(entry for entry in entries if entry.name == name)
        version = {f"version of {entry.dist.name}": entry.dist.version} if entry.dist is not None else {}
        component._code = {**module_code(entry.module), **version}
    return component


def _plugin_file(name: str) -> Path:
    return Path(real_path(Path(name.rpartition(":")[0])))


@dataclass(frozen=True)
class Pick:
    """Field marker: the recipe names a component of this kind, as `"name"` or `{use = "name", ...settings}`.

    With `many`, the field is a tuple and the recipe gives a list of such values.
    """

    kind: str
    many: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(self._build)

    def _build(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        field = info.field_name or self.kind
        if self.many and not isinstance(value, list | tuple):
            raise RecipeError(f"needs a list of {self.kind}s", (field,))
        components = []
        for number, part in enumerate(value if self.many else (value,)):
            try:
                components.append(build(self.kind, part))
            except RecipeError as error:
                raise error.under(f"{field}[{number}]" if self.many else field) from None
        return tuple(components) if self.many else components[0]


def pick_of(annotation_metadata: list[Any]) -> Pick | None:
    """The `Pick` among a field's metadata, if it has one."""
    return next((marker for marker in annotation_metadata if isinstance(marker, Pick)), None)


def settings_error(error: ValidationError, known: Iterable[str]) -> RecipeError:
    """One line for a refused table: its first mistake, and how many more there are."""
    details = error.errors(include_url=False)
    first, known = details[0], list(known)
    mistake, path = first["type"], tuple(str(part) for part in first["loc"])
    context = {
        name: f"{value:,}".removesuffix(".0") if isinstance(value, int | float) else value
        for name, value in first.get("ctx", {}).items()
    }
    wanted = _REFUSALS.get(mistake) or _REFUSALS.get(mistake.partition("_")[0])
    if mistake == "extra_forbidden":
        message = f"no setting is called '{path[-1]}'.{nearest(path[-1], known)} Known: {', '.join(known) or 'none'}"
    elif mistake == "missing":
        message = "this setting is required; give it a value"
    else:
        own = first["msg"].removeprefix("Value error, ")
        message = f"give {wanted.format(**context)}" if wanted else own[:1].lower() + own[1:]
        message += f", not {first['input']!r}" if path else ""
    more = f" (and {len(details) - 1} more in this table)" if len(details) > 1 else ""
    return RecipeError(message + more, path)


_REFUSALS = {
    "int_parsing_size": "a smaller number",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text in quotes",
    "path": "a path in quotes",
    "list": "a list in brackets",
    "tuple": "a list in brackets",
    "dict": "a table",
    "model": "a table",
}
"""Type of a validation error, or how it begins -> what to give instead; `{...}` is filled from its context."""
