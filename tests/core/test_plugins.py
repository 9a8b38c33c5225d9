"""The key of a plug-in covers its file and the local modules that it imports."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from reaemb_bench.core import registry
from reaemb_bench.core.errors import RecipeError
from reaemb_bench.core.plugins import only_stored_code
from reaemb_bench.core.registry import build

PLUGIN = """
from reaemb_bench import Component, Vectors
IMPORT

class Scaled(Component):
    '''A reducer that another module helps.'''

    def reduce(self, vectors):
        LAZY
        return RESULT
"""


def plugin(folder: Path, use: str = "import helper", lazy: str = "pass", factor: str = "helper.FACTOR") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    text = PLUGIN.replace("IMPORT", use).replace("LAZY", lazy).replace("RESULT", factor)
    (folder / "mine.py").write_text(text, encoding="utf-8")
    return f"{folder}/mine.py:Scaled"


def helper(folder: Path, factor: int, name: str = "helper.py") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"FACTOR = {factor}\n", encoding="utf-8")


def factor_of(use: str) -> int:
    return build("reducer", use).reduce(None)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("use", "lazy", "name", "factor"),
    [
        ("import helper", "pass", "helper.py", "helper.FACTOR"),
        ("from helper import FACTOR as factor", "pass", "helper.py", "factor"),
        ("", "import helper", "helper.py", "helper.FACTOR"),
        ("import parts.helper", "pass", "parts/helper.py", "parts.helper.FACTOR"),
        ("from between import helper", "pass", "helper.py", "helper.FACTOR"),
    ],
)
def test_a_module_that_a_plug_in_imports_is_in_its_key(
    tmp_path: Path, use: str, lazy: str, name: str, factor: str
) -> None:
    (tmp_path / "between.py").write_text("import helper\n", encoding="utf-8")
    helper(tmp_path, 1, name)
    chosen = plugin(tmp_path, use, lazy, factor)
    before = build("reducer", chosen).identity()
    assert factor_of(chosen) == 1
    helper(tmp_path, 2, name)
    assert build("reducer", chosen).identity() != before
    assert factor_of(chosen) == 2
    helper(tmp_path, 1, name)
    assert build("reducer", chosen).identity() == before


def test_a_module_that_it_does_not_import_is_not_in_its_key(tmp_path: Path) -> None:
    helper(tmp_path, 1)
    before = build("reducer", plugin(tmp_path)).identity()
    helper(tmp_path, 1, "other.py")
    assert build("reducer", plugin(tmp_path)).identity() == before


def test_two_plug_ins_have_neighbours_of_one_name(tmp_path: Path) -> None:
    uses = []
    for number in (1, 2):
        helper(tmp_path / str(number), number)
        uses.append(plugin(tmp_path / str(number)))
    assert [factor_of(use) for use in uses] == [1, 2]
    assert [factor_of(use) for use in reversed(uses)] == [2, 1]


def test_a_neighbour_with_the_name_of_a_module_in_use_is_refused(tmp_path: Path) -> None:
    helper(tmp_path, 1, "json.py")
    with pytest.raises(RecipeError, match=r"json\.py has the name of a module that is in use, json; rename the file"):
        build("reducer", plugin(tmp_path, "import json", factor="json.FACTOR"))


def test_the_version_and_the_code_of_an_installed_plug_in_are_in_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme_reducers"
    helper(package, 3)
    (package / "__init__.py").write_text("", encoding="utf-8")
    plugin(package, "from acme_reducers import helper").rpartition(":")
    (tmp_path / "acme-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(version: str) -> dict[str, object]:
        metadata = tmp_path / "acme-1.0.dist-info" / "METADATA"
        metadata.write_text(f"Metadata-Version: 2.1\nName: acme\nVersion: {version}\n", encoding="utf-8")
        entry = importlib.metadata.EntryPoint("acme", "acme_reducers.mine:Scaled", "reaemb_bench.reducer")
        vars(entry)["dist"] = importlib.metadata.Distribution.at(metadata.parent)
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if "reducer" in group else [])
        registry.names.cache_clear()
        return build("reducer", "acme").identity()

    first = install("1.0")
    assert first["code"] == {
        **{name: first["code"][name] for name in ("acme_reducers", "acme_reducers.helper", "acme_reducers.mine")},  # type: ignore[index]
        "version of acme": "1.0",
    }
    assert install("1.1") != first
    helper(package, 4)
    assert install("1.0") != first
    registry.names.cache_clear()
    for name in [name for name in sys.modules if name.startswith("acme_reducers")]:
        del sys.modules[name]


def test_a_stored_record_imports_a_plug_in_only_if_its_code_is_the_same(tmp_path: Path) -> None:
    helper(tmp_path, 1)
    use = plugin(tmp_path)
    identity = build("reducer", use).identity()
    marker = tmp_path / "ran"
    with only_stored_code([{"step": {"part": identity}}]):
        assert factor_of(use) == 1
    for name in ("mine.py", "helper.py"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(f"{text}\nopen({str(marker)!r}, 'w')\n", encoding="utf-8")
        with only_stored_code([{"step": {"part": identity}}]), pytest.raises(RecipeError, match="is not imported"):
            build("reducer", use)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert not marker.exists()
