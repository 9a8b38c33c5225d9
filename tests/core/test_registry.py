"""The registry: our names, those of installed packages, and classes in files."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reaemb_bench.core import registry
from reaemb_bench.core.errors import RecipeError, UserError
from tests.conftest import TOYS

Declare = Callable[[str, str], None]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Iterator[Declare]:
    """Pretends that an installed package declares a reducer as an entry point."""

    def pretend(name: str, value: str) -> None:
        entry = importlib.metadata.EntryPoint(name, value, "reaemb_bench.reducer")
        monkeypatch.setattr(
            importlib.metadata, "entry_points", lambda group: [entry] if group == "reaemb_bench.reducer" else []
        )

    registry.names.cache_clear()
    yield pretend
    registry.names.cache_clear()


def test_entry_points_are_found_beside_our_own_names(declare: Declare) -> None:
    declare("theirs", "tests.helpers.toy_steps:Flat")
    assert {"theirs", "pca"} <= set(registry.names("reducer"))
    assert registry.build("reducer", {"use": "theirs", "factor": 2}).spec() == {"use": "theirs", "factor": 2.0}


def test_an_entry_point_cannot_take_a_name_of_ours(declare: Declare) -> None:
    declare("pca", "tests.helpers.toy_steps:Flat")
    with pytest.raises(UserError, match="declares reducer 'pca'"):
        registry.names("reducer")


def test_an_entry_point_that_fails_to_import_is_named(declare: Declare) -> None:
    declare("theirs", "no_such_package:Thing")
    with pytest.raises(RecipeError, match="reducer 'theirs' cannot be imported from no_such_package:Thing"):
        registry.find("reducer", "theirs")


def test_the_text_of_a_plug_in_file_is_part_of_the_identity_but_its_folder_is_not(tmp_path: Path) -> None:
    made = []
    for place, text in enumerate(["", "", "\n# edited\n"]):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "mine.py").write_text(TOYS.read_text(encoding="utf-8") + text, encoding="utf-8")
        made.append(registry.build("reducer", f"{folder}/mine.py:Flat").identity())
    assert made[0] == made[1]
    assert made[0] != made[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "fails on import: ZeroDivisionError"),
        ("class Thing: pass", "is not a component: derive it from reaemb_bench.Component"),
        ("", "has no class 'Thing'"),
        (
            "from reaemb_bench import Component\nclass Thing(Component):\n def reward(self): pass",
            "is not a reducer: it lacks the method 'reduce'",
        ),
    ],
)
def test_what_is_wrong_with_a_plug_in_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        registry.find("reducer", f"{tmp_path}/mine.py:Thing")


def test_a_missing_plug_in_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no file"):
        registry.find("reducer", f"{tmp_path}/absent.py:Thing")
