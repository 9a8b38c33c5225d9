"""Where names become components: built-ins as strings, entry points of installed packages, and `file.py:Class`.

Nothing is imported before it is asked for.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import ErrorDetails, core_schema

from reaemb_bench.catalogue import CATALOGUE, PROTOCOLS
from reaemb_bench.core.component import Component
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.files import is_file, real_path
from reaemb_bench.core.settings_only import placeholders


def kinds() -> tuple[str, ...]:
    """The kinds of component, in the order in which people meet them."""
    return tuple(CATALOGUE)


@cache
def names(kind: str) -> dict[str, str]:
    """All names of a kind with the `module:Class` behind each: ours, then those of installed packages."""
    found = dict(CATALOGUE[kind])
    for entry in importlib.metadata.entry_points(group=f"reaemb_bench.{kind}"):
        if entry.name in found:
            raise UserError(
                f"an installed package declares {kind} '{entry.name}' as {entry.value}, "
                f"but the name is taken by {found[entry.name]}; rename it there"
            )
        found[entry.name] = entry.value
    return found


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word closest to `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def find(kind: str, name: str) -> type[Component]:
    """The component class that `name` stands for.

    Raises RecipeError where no such component exists, naming the nearest known one.
    """
    known = names(kind)
    if name in known:
        module, _, attribute = known[name].partition(":")
        try:
            with placeholders():
                made = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise RecipeError(f"{kind} '{name}' cannot be imported from {known[name]}: {error}") from error
    elif ".py:" in name:
        file, _, attribute = name.rpartition(":")
        plugin = _plugin(Path(real_path(Path(file))))
        made = getattr(plugin, attribute, None)
        if made is None:
            hint = nearest(attribute, vars(plugin))
            raise RecipeError(f"the file {file} has no class '{attribute}';{hint} Add it there, or name another")
    else:
        raise RecipeError(f"no {kind} is called '{name}'.{nearest(name, known)} Known: {', '.join(sorted(known))}")
    if not (isinstance(made, type) and issubclass(made, Component)):
        raise RecipeError(f"{name} is no component: derive it from reaemb_bench.Component")
    if lacking := [method for method in methods_of(kind) if not callable(getattr(made, method, None))]:
        raise RecipeError(f"{name} is no {kind}: it lacks the method '{lacking[0]}'; give it one, or name another")
    return made


def methods_of(kind: str) -> tuple[str, ...]:
    """Names of the methods that a component of a kind must have; none for a step, whose `run` is its own."""
    if kind not in PROTOCOLS:
        return ()
    module, _, protocol = PROTOCOLS[kind].partition(":")
    with placeholders():
        methods = vars(getattr(importlib.import_module(module), protocol))
    return tuple(name for name, value in methods.items() if callable(value) and name[0] != "_")


@cache
def _plugin(file: Path) -> ModuleType:
    if not is_file(file):
        raise RecipeError(f"there is no file {file}; give its path relative to the recipe")
    name = f"reaemb_bench_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    module_spec = importlib.util.spec_from_file_location(name, file)
    if module_spec is None or module_spec.loader is None:
        raise RecipeError(f"{file} cannot be imported as Python")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RecipeError(f"{file} fails on import: {type(error).__name__}: {error}; correct it there") from error
    return module


def build(kind: str, value: Any) -> Component:
    """A component of `kind` from a recipe value: a name, a table with `use`, or a component that is already built.

    None stands for the kind's component `none`, where it has one: that is how `--drop step.part` works.
    Raises RecipeError with the path inside the table.
    """
    if isinstance(value, Component):
        return value
    if value is None:
        if "none" not in names(kind):
            raise RecipeError(f"a {kind} is required here and cannot be dropped")
        value = "none"
    table = dict(value) if isinstance(value, dict) else {"use": value}
    name = table.pop("use", None)
    if not isinstance(name, str):
        raise RecipeError(f'names no {kind}: add use = "...". Known: {", ".join(sorted(names(kind)))}')
    made_by = find(kind, name)
    try:
        made = made_by.model_validate(table)
    except ValidationError as error:
        raise settings_error(error, made_by.model_fields) from None
    made._use = name
    if ".py:" in name and name not in names(kind):
        made._code = hashlib.sha256(Path(name.rpartition(":")[0]).read_bytes()).hexdigest()
    return made


@dataclass(frozen=True)
class Pick:
    """Field marker: the recipe names a component of this kind, as `"name"` or `{use = "name", ...settings}`.

    With `many`, the field is a tuple and the recipe gives a list of such values.
    """

    kind: str
    many: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validate)

    def _validate(self, value: Any, info: core_schema.ValidationInfo) -> Any:
        field = info.field_name or self.kind
        if not self.many:
            try:
                return build(self.kind, value)
            except RecipeError as error:
                raise error.under(field) from None
        if not isinstance(value, list | tuple):
            raise RecipeError(f"needs a list of {self.kind}s", (field,))
        made = []
        for place, each in enumerate(value):
            try:
                made.append(build(self.kind, each))
            except RecipeError as error:
                raise error.under(f"{field}[{place}]") from None
        return tuple(made)


def pick_of(annotation_metadata: list[Any]) -> Pick | None:
    """The `Pick` among a field's metadata, if it has one."""
    return next((each for each in annotation_metadata if isinstance(each, Pick)), None)


def settings_error(error: ValidationError, known: Iterable[str]) -> RecipeError:
    """One line for a refused table: its first mistake, and how many more there are."""
    details = error.errors(include_url=False)
    more = f" (and {len(details) - 1} more in this table)" if len(details) > 1 else ""
    first = details[0]
    path = tuple(str(part) for part in first["loc"])
    return RecipeError(_sentence(first, known) + more, path)


def _sentence(detail: ErrorDetails, known: Iterable[str]) -> str:
    known = list(known)
    if detail["type"] == "extra_forbidden":
        word = str(detail["loc"][-1])
        return f"no setting is called '{word}'.{nearest(word, known)} Known: {', '.join(known) or 'none'}"
    if detail["type"] == "missing":
        return "this setting is required; give it a value"
    if detail["type"] == "int_parsing_size":
        return f"give a smaller number, not {detail['input']!r}"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"{message}, not {detail['input']!r}" if detail["loc"] else message
