"""The rooms of the package import downward only, no two modules import each other, and plug-ins need the top alone."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import reaemb_bench
from reaemb_bench.cli.components import new

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reaemb_bench"
FLOORS = (
    ("catalogue",),
    ("core",),
    ("data",),
    ("evaluation",),
    ("encoder",),
    ("rl",),
    ("recommender",),
    ("report", "tracking"),
    ("experiments",),
    ("cli",),
    ("__main__",),
)
"""Lowest first. A room may import itself and rooms of lower floors."""


def test_rooms_import_downward_only() -> None:
    assert climbing(PACKAGE) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(modules(PACKAGE)) == []


def test_the_package_does_not_import_its_own_top() -> None:
    # Such an import would hide which room it needs; the version alone belongs to the top.
    imports = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in sources(PACKAGE)
        for module, name, _ in imported(file)
        if module == "reaemb_bench" and name != "__version__"
    ]
    assert imports == []


def test_every_name_of_the_top_can_be_imported() -> None:
    assert all(getattr(reaemb_bench, name) is not None for name in reaemb_bench.__all__)


@pytest.mark.parametrize("kind", ["step", "loss", "reward", "advantage", "pooling", "reducer", "objective", "floor"])
def test_what_new_writes_imports_the_top_alone(kind: str, tmp_path: Path) -> None:
    new(kind, "mine", tmp_path)
    for file in ("mine.py", "test_mine.py"):
        assert beyond_the_top((tmp_path / file).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))])
def test_examples_of_the_pages_import_the_top_alone(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert [line for block in blocks for line in beyond_the_top(block)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from reaemb_bench.rl.crrl import step",
        "import reaemb_bench.rl.crrl",
        "def late():\n    from reaemb_bench.rl.crrl import step",
        "if TYPE_CHECKING:\n    from reaemb_bench.rl import crrl",
        "from ..rl.crrl import step",
    ],
)
def test_an_import_that_climbs_is_noticed(tmp_path: Path, line: str) -> None:
    write(tmp_path, {"core/store.py": line, "rl/crrl.py": "step = 1"})
    assert climbing(tmp_path / "reaemb_bench") == ["core/store.py imports rl"]


def test_a_circle_is_noticed(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "core/store.py": "from reaemb_bench.core import plan",
            "core/plan.py": "from reaemb_bench.core.recipe import load",
            "core/recipe.py": "import reaemb_bench.core.store",
        },
    )
    assert circles(modules(tmp_path / "reaemb_bench")) == [["core.plan", "core.recipe", "core.store"]]


def climbing(package: Path) -> list[str]:
    """Imports of a room on the same or a higher floor, or of a room without a floor."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = set()
    for file in sources(package):
        room = file.relative_to(package).with_suffix("").parts[0]
        for module, name, _ in imported(file):
            target = f"{module}.{name}".split(".")[1]
            if room == "__init__" or target == room or (module == "reaemb_bench" and target not in floor):
                continue
            if floor.get(target, len(FLOORS)) >= floor.get(room, -1):
                wrong.add(f"{file.relative_to(package).as_posix()} imports {target}")
    return sorted(wrong)


def modules(package: Path) -> dict[str, set[str]]:
    """Which modules of the package each of its modules imports when it is imported itself."""
    names = {".".join(file.relative_to(package).with_suffix("").parts): file for file in sources(package)}
    graph: dict[str, set[str]] = defaultdict(set)
    for name, file in names.items():
        for module, imported_name, late in imported(file):
            path = f"{module}.{imported_name}".removeprefix("reaemb_bench.")
            target = path if path in names else path.rpartition(".")[0]
            if not late and target in names and target != name:
                graph[name].add(target)
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes each of which leads to all others of its group."""
    reached = {}
    for start in graph:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += graph.get(node, ())
        reached[start] = seen
    groups = {tuple(sorted(b for b in reached[a] if a in reached.get(b, ()))) for a in reached if a in reached[a]}
    return [list(group) for group in sorted(groups)]


def sources(package: Path) -> list[Path]:
    """Files of the package."""
    return sorted(package.rglob("*.py"))


@cache
def imported(file: Path) -> tuple[tuple[str, str, bool], ...]:
    """(module, name, whether only a function or a type checker imports it) of every import of this project."""
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[tuple[str, str, bool]]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    folders = file.parts[file.parts.index("reaemb_bench") :] if "reaemb_bench" in file.parts else ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                module, _, name = alias.name.rpartition(".")
                if module.split(".")[0] == "reaemb_bench":
                    yield module, name, id(node) in late
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = ".".join((*folders[: -node.level], *([module] if module else [])))
            if module.split(".")[0] == "reaemb_bench":
                for alias in node.names:
                    yield module, alias.name, id(node) in late


def beyond_the_top(code: str) -> list[str]:
    """Imports from modules of this project other than its top."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {ast.unparse(node): [getattr(node, "module", None) or "", *(a.name for a in node.names)] for node in nodes}
    return [line for line, parts in names.items() if any(part.startswith("reaemb_bench.") for part in parts)]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, code in files.items():
        file = folder / "reaemb_bench" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code, encoding="utf-8")
