"""Import components for their settings alone, without torch.

A component's settings and its network stand in one file, which imports torch at its top. Verbs such as `plan`, which
read settings and compute nothing, call `import_settings_only()` first; while a component's file is imported, torch and
its relatives are then replaced by placeholders that can be subclassed, called and used as decorators, and do nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

SLOW = frozenset({"torch", "transformers", "peft", "tokenizers", "sklearn", "scipy", "polars"})
"""Packages that take seconds to import."""

_wanted = _given = False


def import_settings_only() -> None:
    """From now on components of this process have settings and no networks; for processes that compute nothing."""
    global _wanted
    _wanted = True


def forget_placeholders() -> bool:
    """Undo `import_settings_only` for a verb that computes; returns whether a placeholder was given to any module.

    If so, this package, and all modules that hold placeholders or classes of this package, are gone from `sys.modules`.
    """
    global _wanted
    _wanted = False
    if not _given:
        return False
    for name, module in list(sys.modules.items()):
        held = list(getattr(module, "__dict__", {}).values())
        origins = [name, *(str(value.__module__) for value in held if isinstance(value, type))]
        own = any(origin.partition(".")[0] == "reaemb_bench" for origin in origins)
        if name != "__main__" and (own or any(type(value) in (_Anything, _Module) for value in held)):
            del sys.modules[name]
    return True


@contextmanager
def placeholders() -> Iterator[None]:
    """A block in which imports of slow packages give placeholders, if `import_settings_only` was called before.

    Packages that are really loaded already stay as they are.
    """
    if not _wanted or "torch" in sys.modules:
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Module)]:
            del sys.modules[name]


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder

    def __or__(cls, other: Any) -> Any:
        return cls

    def __ror__(cls, other: Any) -> Any:
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls


class Placeholder(metaclass=_Anything):
    """Stands for any class, function or decorator of a package that was not imported."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """An instance, for any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __init_subclass__(cls, **_: Any) -> None: ...

    def __call__(self, decorated: Any = None, *_: Any, **__: Any) -> Any:
        """What a decorator of nothing returns: the function that it was given."""
        return decorated


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Placeholder


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in SLOW else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        global _given
        _given = True
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...
