"""A recipe, however bad, is planned or refused in one line that names the place and the cure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reaemb_bench.catalogue import CATALOGUE
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import from_raw, load
from reaemb_bench.core.registry import find
from tests.faults.mutations_recipes import ODD, Case, mutated
from tests.faults.outcomes import Tally

if TYPE_CHECKING:
    from tests.conftest import Said

ROOT = Path(__file__).parents[2]


def _planned(case: Case) -> None:
    recipe = load(case.recipe, case.sets, case.drops)
    keys = [job.key for job in plan(recipe, recipe.seeds[0]).jobs]
    # What is planned is planned alike from the text that a run leaves behind.
    again = Path(case.recipe).parent / "again.toml"
    again.write_text(recipe.toml(), encoding="utf-8")
    assert [job.key for job in plan(load(again), recipe.seeds[0]).jobs] == keys


def _words(case: Case) -> list[str]:
    edits = [*(f"--set={text}" for text in case.sets), *(f"--drop={text}" for text in case.drops)]
    return [*edits, "--", case.recipe]


def _refused(case: Case) -> bool:
    try:
        _planned(case)
    except UserError:
        return True
    return False


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.faults)])
def test_a_mutated_recipe_is_planned_or_refused_in_one_line(
    count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tally = Tally("mutated recipes, load and plan")
    for seed in range(count):
        case = mutated(seed, tmp_path / str(seed))
        tally.attempt(case.label, lambda case=case: _planned(case))  # type: ignore[misc]
    tally.settle(record_property)


@pytest.mark.parametrize("count", [20, pytest.param(100, marks=pytest.mark.faults)])
def test_the_verb_plan_shows_a_mutated_recipe_or_refuses_it(
    count: int, tmp_path: Path, command: Callable[..., Said], record_property: Callable[[str, object], None]
) -> None:
    tally = Tally("mutated recipes, the verb plan")

    def shown(case: Case) -> None:
        said = command("plan", "--store", tmp_path / "store", *_words(case))
        if said.code == 2:
            raise UserError(said.err.removesuffix("\n"))
        assert said.code == 0
        assert " steps would run" in said.out
        assert said.err == ""

    for seed in range(count):
        case = mutated(seed, tmp_path / str(seed))
        tally.attempt(case.label, lambda case=case: shown(case))  # type: ignore[misc]
    tally.settle(record_property)
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.faults)])
def test_run_refuses_in_a_process_of_its_own_and_writes_nothing(
    count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    begun = (mutated(seed, tmp_path / str(seed)) for seed in range(1000))
    # A process can be given no NUL.
    bad = (case for case in begun if "\x00" not in "".join(_words(case)) and _refused(case))
    for case in (next(bad) for _ in range(count)):
        words = ["run", "--store", str(tmp_path / "store"), *_words(case)]
        done = subprocess.run(
            [sys.executable, "-m", "reaemb_bench", *words], capture_output=True, text=True, cwd=tmp_path, timeout=120
        )
        assert done.returncode == 2, f"{case.label}: {done.stderr}"
        assert len(done.stderr.splitlines()) == 1, f"{case.label}: {done.stderr}"
        assert done.stderr.startswith("error: ")
        assert done.stdout == ""
    assert not (tmp_path / "store").exists()
    record_property("faults", f"run in a process of its own: {count} tried, 0 survived, {count} refused, 0 lost")


@pytest.mark.slow
def test_bad_recipes_are_refused_without_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.faults.mutations_recipes import mutated; "
        "from tests.faults.test_bad_recipes import _refused; "
        "from reaemb_bench.core.settings_only import import_settings_only; import_settings_only(); "
        f"cases = [mutated(seed, Path({str(tmp_path)!r}) / str(seed), 'recipes') for seed in range(30)]; "
        "print(sum(map(_refused, cases))); "
        "print(sorted({'torch', 'transformers', 'mlflow'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    refused, imported = done.stdout.splitlines()
    assert int(refused) > 10
    assert imported == "[]"


def _settings_of(step: str) -> list[str]:
    return list(find("step", step).model_fields)


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.datetimes(),
    st.sampled_from([name for names in CATALOGUE.values() for name in names]),
    st.sampled_from(ODD),
)


@st.composite
def _table(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    step = draw(st.sampled_from(list(CATALOGUE["step"])))
    known = [*_settings_of(step), "use"]
    keys = st.one_of(
        st.sampled_from(known), st.sampled_from(["use", "epochs", "hidden", "dimensions"]), st.text(max_size=9)
    )
    nested = st.recursive(
        _LEAVES,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
        max_leaves=12,
    )
    return step, draw(st.dictionaries(keys, nested, max_size=5))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(_table())
def test_any_nested_values_make_a_step_or_a_line(drawn: tuple[str, dict[str, Any]]) -> None:
    step, table = drawn
    try:
        recipe = from_raw({"steps": [step], step: table}, "drawn")
    except UserError as error:
        assert str(error).strip()
        return
    assert list(recipe.steps) == [step]
    assert recipe.toml()
