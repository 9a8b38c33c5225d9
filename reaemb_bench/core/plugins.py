"""Plug-in code: files that recipes name, the local modules that they import, and the sha256 of all of it.

A plug-in may import the modules next to it. Those, and any other module that is not installed, decide results as the
plug-in itself does, so their sha256 is part of the key too. The code of this package's own components is in no key, but
in the manifest of each result, so that results of another version are used with a note.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import reaemb_bench
from reaemb_bench.core.component import Component, components_in
from reaemb_bench.core.errors import RecipeError
from reaemb_bench.core.files import cached_sha256, is_file

_INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_OWN = Path(reaemb_bench.__file__).parent


@dataclass(frozen=True)
class Plugin:
    """An imported plug-in file. code: name of the file or of a local module -> the sha256 that was imported."""

    module: ModuleType
    files: Mapping[str, Path]
    code: Mapping[str, str]


_plugins: dict[Path, Plugin] = {}
_neighbours: dict[str, tuple[Path, str]] = {}
_trusted: ContextVar[frozenset[str] | None] = ContextVar("trusted", default=None)


@contextmanager
def only_stored_code(identities: Iterable[Any]) -> Iterator[None]:
    """A block in which plug-ins are imported only if their code is that of results with these identities.

    For what a stored record names: a record must not cause code to run that its user never ran.
    """
    token = _trusted.set(frozenset(digest for identity in identities for digest in _digests(identity)))
    try:
        yield
    finally:
        _trusted.reset(token)


def _digests(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (value["code"].values() if isinstance(value.get("code"), Mapping) else ())
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _digests(part)


def load_plugin(file: Path) -> Plugin:
    """The imported plug-in file; imported again if it, or a module next to it, was changed since.

    Raises RecipeError if the file is missing, fails, or is not what a stored result was computed with.
    """
    if not is_file(file):
        raise RecipeError(f"there is no file {file}; give its path relative to the recipe")
    neighbours = {name: (path, cached_sha256(path)) for name, path in _local_imports(file, "", file.parent).items()}
    own, trusted = cached_sha256(file), _trusted.get()
    for path, digest in ((file, own), *neighbours.values()):
        if trusted is not None and digest not in trusted:
            raise RecipeError(
                f"{path} is not imported: a stored result names it, and its sha256 is not the one of that result; "
                "put the file back as it was, or run the recipe again"
            )
    known = _plugins.get(file)
    if known is not None and all(cached_sha256(path) == known.code[name] for name, path in known.files.items()):
        return known
    module_name = f"reaemb_bench_plugin_{hashlib.sha256(f'{file}/{own}'.encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{file} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    # Another plug-in, or this one before an edit of any of them, may have imported modules of these names.
    if any(_neighbours.get(name) != neighbour for name, neighbour in neighbours.items()):
        for name, (path, _) in neighbours.items():
            if name in _neighbours:
                sys.modules.pop(name, None)
            elif name in sys.modules and getattr(sys.modules[name], "__file__", None) != str(path):
                raise RecipeError(f"{path} has the name of a module that is in use, {name}; rename the file")
    sys.modules[module_name] = module
    sys.path.insert(0, str(file.parent))
    importlib.invalidate_caches()
    # Byte code is known by second and size alone: an edit at once after another would run as the code before it.
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
        # An import inside a function finds it among the imported modules later on.
        for name in neighbours:
            importlib.import_module(name)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise RecipeError(f"{file} fails on import: {type(error).__name__}: {error}; correct it there") from error
    finally:
        sys.path.remove(str(file.parent))
        sys.dont_write_bytecode = writes_bytecode
    _neighbours.update(neighbours)
    files = {file.name: file, **_local_imports(file, "", file.parent)}
    _plugins[file] = Plugin(module, files, {name: cached_sha256(path) for name, path in files.items()})
    return _plugins[file]


def room_code(component: Component) -> dict[str, str]:
    """Room of this package -> digest of its code, for a component, its base classes and all components inside it."""
    modules = {base.__module__ for _, part in components_in(component) for base in type(part).__mro__}
    rooms = {name.split(".")[1] for name in modules if name.startswith("reaemb_bench.")} - {"core"}
    return {room: _room_digest(room) for room in sorted(rooms) if (_OWN / room).is_dir()}


@cache
def _room_digest(room: str) -> str:
    files = sorted((_OWN / room).rglob("*.py"))
    text = "".join(f"{file.relative_to(_OWN).as_posix()} {cached_sha256(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def module_code(name: str) -> dict[str, str]:
    """Module -> sha256 of an imported module, of those of its package that it imports, and of other local ones."""
    file = Path(str(sys.modules[name].__file__))
    files = {name: file, **_local_imports(file, name, None)}
    return {module: cached_sha256(path) for module, path in files.items()}


def _local_imports(file: Path, name: str, folder: Path | None) -> dict[str, Path]:
    """Module -> file of all modules that a file imports, at any depth, and that are not installed.

    name: the file's own module, whose package counts as local. folder: in which modules are found first.
    """
    files: dict[str, Path] = {}
    waiting = [(file, name)]
    while waiting:
        importer, importer_name = waiting.pop()
        for wanted in _imported_names(importer, importer_name, cached_sha256(importer)) - {*files, name, ""}:
            nearby = folder.joinpath(*wanted.split(".")) if folder is not None else None
            candidates = [nearby / "__init__.py", nearby.with_suffix(".py")] if nearby is not None else []
            path = next((candidate for candidate in candidates if is_file(candidate)), None)
            imported = getattr(sys.modules.get(wanted), "__file__", None)
            if path is None and imported is not None and imported.endswith(".py"):
                path = Path(imported)
                same_package = bool(name) and wanted.partition(".")[0] == name.partition(".")[0]
                installed = any(path.is_relative_to(parent) for parent in _INSTALLED) and not same_package
                if installed or path.is_relative_to(_OWN):
                    continue
            if path is not None and path != file:
                files[wanted] = path
                waiting.append((path, wanted))
    return dict(sorted(files.items()))


@cache
def _imported_names(file: Path, name: str, sha256: str) -> frozenset[str]:  # noqa: ARG001 - one text, one entry
    """The modules, and their parents, that a file imports anywhere, and names in them that may be modules."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        # The import says what is wrong with it.
        return frozenset()
    names: set[str] = set()
    package = (name if file.name == "__init__.py" else name.rpartition(".")[0]).split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    split = [name.split(".") for name in names]
    return frozenset(".".join(parts[:end]) for parts in split for end in range(1, len(parts) + 1))
