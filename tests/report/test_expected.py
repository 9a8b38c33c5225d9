"""Expected numbers: what a table says of them, and that the shipped recipes and their expectations fit each other."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.recipe import SHIPPED, load
from reaemb_bench.data.prepare import Prepare
from reaemb_bench.recommender.simple_baselines import RankFloors
from reaemb_bench.report import render as markdown
from reaemb_bench.report.expected import Expectation, Expected, read_expected
from reaemb_bench.report.table import Cell, Column, Row, Table
from tests.conftest import Said

Command = Callable[..., Said]

REFERENCE = SHIPPED / "recipes" / "reference"
RECIPES = sorted(file.stem for file in REFERENCE.glob("*.toml") if not file.stem.startswith(("common", "expected")))

TABLE = Table(
    "Toys",
    (Column("HR@10"), Column("NDCG@10"), Column("MRR"), Column("NDCG@10", "tail")),
    (
        Row("first", (Cell(0.5), Cell(0.2), Cell(0.1), Cell(0.9))),
        Row("last", (Cell(0.0859), Cell(0.04712), Cell(0.03), Cell(0.9))),
        Row("popularity", (Cell(0.0115), Cell(0.0054), Cell(0.004), Cell(0.9)), floor=True),
    ),
    ("a note",),
)

TOY_NOTE = """\
[[expected]]
recipes = ["other", "toys"]
least = 0.4
users = 6
source = "counted by hand"
"""


def expecting(**settings: object) -> Expectation:
    return Expectation.model_validate({"recipes": ["x"], "least": 0.0, "users": 9, "source": "Author 2020", **settings})


def note(users: int = 9, **settings: object) -> str:
    return Expected((expecting(**settings),)).noted(TABLE, users).notes[-1]


def write(folder: Path, text: str) -> Path:
    (folder / "expected.toml").write_text(text, encoding="utf-8")
    return folder / "toys.toml"


def test_what_is_reached_and_what_is_not() -> None:
    assert note(least=0.045) == "expected NDCG@10 at least .0450 (Author 2020): reached, .0471"
    assert note(least=0.05) == "expected NDCG@10 at least .0500 (Author 2020): not reached, .0471"
    assert note(least=0.02, most=0.03) == "expected NDCG@10 .0200 to .0300 (Author 2020): above that, .0471"
    assert note(least=0.04, most=0.05) == "expected NDCG@10 .0400 to .0500 (Author 2020): reached, .0471"
    assert note(metric="HR@10", least=0.08) == "expected HR@10 at least .0800 (Author 2020): reached, .0859"


def test_a_floor_may_be_expected_too() -> None:
    said = note(row="popularity", least=0.0066, most=0.0086)
    assert said == "expected NDCG@10 of popularity .0066 to .0086 (Author 2020): not reached, .0054"


def test_the_number_that_is_printed_decides() -> None:
    # 0.04712 prints as .0471, so neither bound may contradict what the reader sees.
    assert note(least=0.0471).endswith("reached, .0471")
    assert "not reached" not in note(least=0.0471)
    assert "above" not in note(least=0.04, most=0.0471)


def test_other_data_and_absent_rows_are_not_compared() -> None:
    assert note(users=1000).endswith("not compared, this is other data (1,000 test users, not 9)")
    assert note(row="item-knn").endswith("not compared, the table has no such number")


def test_a_changed_recipe_is_told_but_once() -> None:
    expectations = (expecting(least=0.01), expecting(least=0.02))
    notes = Expected(expectations, ("train.epochs=1", "--drop floors")).noted(TABLE, 9).notes
    assert notes[0] == "a note"
    assert [text for text in notes if "changed" in text] == [
        "expected is what the unchanged recipe gives; changed here: train.epochs=1, --drop floors"
    ]
    assert Expected((), ("train.epochs=1",)).noted(TABLE, 9) == TABLE


def test_only_what_names_the_recipe_is_expected_of_it(tmp_path: Path) -> None:
    assert read_expected(tmp_path / "toys.toml") == Expected(())
    both = TOY_NOTE + TOY_NOTE.replace('"toys"', '"elsewhere"').replace("0.4", "0.5")
    assert [each.least for each in read_expected(write(tmp_path, both)).expectations] == [0.4]


MISTAKES = {
    "misspelt metric": ('metric = "NDGC@10"', "expected.0.metric: give 'HR@10', 'NDCG@10' or 'MRR'"),
    "sampled metric": ('metric = "NDCG@10 sampled"', "expected.0.metric: "),
    "misspelt setting": ("mots = 0.5", "expected.0.mots: no setting is called 'mots'. Did you mean 'most'?"),
    "empty range": ("most = 0.3", "most (0.3) lies below least (0.4)"),
    "per cent": ("most = 19.0", "expected.0.most: give a number of at most 1"),
    "no TOML": ("most =", "cannot be read as TOML"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_in_the_file_is_one_line(mistake: str, tmp_path: Path) -> None:
    line, part = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        read_expected(write(tmp_path, TOY_NOTE + line + "\n"))
    assert str(tmp_path / "expected.toml") in str(caught.value)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_says_whether_it_reached_what_is_expected(command: Command, toy_recipe: Path) -> None:
    # The toy judge puts six targets at the places 1 to 6.
    reached = np.mean(1 / np.log2(np.arange(6) + 2))
    write(toy_recipe.parent, TOY_NOTE)
    said = command("run", toy_recipe)
    assert said.code == 0, said.err
    assert f"expected NDCG@10 at least .4000 (counted by hand): reached, {reached:.4f}".replace(" 0.", " .") in said.out
    changed = command("run", toy_recipe, "--set", "train.rate=0.2", "--set", "seeds=[1, 2]").out
    assert "expected is what the unchanged recipe gives; changed here: train.rate=0.2, seeds=[1, 2]" in _flat(changed)


def test_an_expectation_changes_no_result(command: Command, toy_recipe: Path) -> None:
    before = [job.key for job in plan(load(toy_recipe), 42).jobs]
    assert "expected" not in command("run", toy_recipe).out
    write(toy_recipe.parent, TOY_NOTE.replace("0.4", "0.9"))
    assert [job.key for job in plan(load(toy_recipe), 42).jobs] == before
    again = command("run", toy_recipe).out
    assert "everything was cached" in again
    assert "(counted by hand): not reached, .5508" in _flat(again)


def test_a_broken_file_is_found_before_anything_runs(command: Command, toy_recipe: Path) -> None:
    write(toy_recipe.parent, TOY_NOTE + 'metric = "NDGC@10"\n')
    said = command("run", toy_recipe)
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    assert not Path(".reaemb-bench").exists()


def test_several_seeds_are_held_to_it_by_their_mean(command: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'steps = ["prepare", "train", "rank", "floors"]\n'
        'prepare = { source = { use = "simulated", users = 60, items = 40 } }\n'
        "[train]\nuse = 'train-ids'\nhead = { use = 'sasrec', hidden = 8, max_length = 10 }\nepochs = 2\n",
        encoding="utf-8",
    )
    write(tmp_path, TOY_NOTE.replace('"toys"', '"tiny"').replace("users = 6", "users = 60").replace("0.4", "0.0001"))
    said = command("run", recipe, "--set", "seeds=[1, 2, 3]")
    assert said.code == 0, said.err
    assert "mean ± standard deviation over 3 seeds" in said.out
    assert "computed 8 steps" in said.out
    shown = _flat(said.out)
    number = next(line.split()[2] for line in said.out.splitlines() if line.split()[:1] == ["tiny"] and "." in line)
    assert f"expected NDCG@10 at least .0001 (counted by hand): reached, {number}" in shown
    assert " tiny and " in shown or "tiny beats " in shown or "tiny loses to " in shown


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_every_reference_recipe_is_held_to_a_number() -> None:
    assert len(RECIPES) == 10
    written = tomllib.loads((REFERENCE / "expected.toml").read_text(encoding="utf-8"))["expected"]
    assert {name for each in written for name in each["recipes"]} == set(RECIPES)
    for name in RECIPES:
        own = [each for each in read_expected(REFERENCE / f"{name}.toml").expectations if not each.row]
        assert [each.metric for each in own] == ["NDCG@10"], name


@pytest.mark.parametrize("name", RECIPES)
def test_a_reference_recipe_plans_with_and_without_its_data(name: str, command: Command) -> None:
    recipe = load(f"reference/{name}")
    planned = plan(recipe, 42)
    assert [job.name for job in planned.jobs] == ["prepare", "train", "rank", "floors"]
    assert planned.leaks == ()
    floors = recipe.steps["floors"]
    assert isinstance(floors, RankFloors)
    rows = {each.row for each in read_expected(REFERENCE / f"{name}.toml").expectations}
    assert rows <= {"", *(each["use"] for each in floors.spec()["floors"])}
    for words in ((), _settings(_write_data(Path("shop"), name))):
        said = command("plan", f"reference/{name}", *words)
        assert said.code == 0, said.err
        assert "4 of 4 steps would run" in said.out


@pytest.mark.parametrize("name", ["beauty_sasrec_ce", "ml1m_sasrec_ce"])
def test_a_reference_recipe_reads_its_data_and_knows_other_data(name: str, command: Command) -> None:
    small = ["--set", "train.epochs=1", "--set", "train.head.hidden=8"]
    said = command("run", f"reference/{name}", *_settings(_write_data(Path("shop"), name)), *small)
    assert said.code == 0, said.err
    assert "not compared, this is other data (12 test users, not " in _flat(said.out)
    assert "changed here: train.epochs=1, train.head.hidden=8" in _flat(said.out)


def test_item_texts_of_reference_data_hold_titles_and_categories(tmp_path: Path) -> None:
    for name, text in (
        ("beauty_sasrec_ce", 'title is A "red" pen: 3; categories is Pens, Red'),
        ("ml1m_sasrec_ce", 'title is A "Red" Pen: 3; year is 1995; genres is Pens, Red'),
    ):
        data = _write_data(tmp_path / name, name)
        recipe = load(f"reference/{name}", [word for word in _settings(data) if word != "--set"])
        prepare = recipe.steps["prepare"]
        assert isinstance(prepare, Prepare)
        read = prepare.source.read(Machine(mlflow=""))
        assert prepare.prompt.text(read.items["3"]) == text
        assert read.frame.height == 12 * 8


def _write_data(folder: Path, name: str) -> Path:
    """Twelve users with eight interactions each over ten items, in the format that the recipe reads."""
    folder.mkdir(exist_ok=True)
    rows = [(user, (user * 3 + place * 7) % 10, place) for user in range(12) for place in range(8)]
    if name.startswith("beauty"):
        lines = ["user_id,item_id,position", *(f"{user},{item},{place}" for user, item, place in rows)]
        texts = [
            json.dumps({"item_id": item, "title": f'A "red" pen: {item}', "categories": ["Pens", "Red"]})
            for item in range(10)
        ]
    else:
        lines = [f"{user}::{item}::4::{978_300_900 + place}" for user, item, place in rows]
        texts = [f'{item}::"Red" Pen: {item}, A (1995)::Pens|Red' for item in range(10)]
    files = ("interactions.csv", "items.jsonl") if name.startswith("beauty") else ("ratings.dat", "movies.dat")
    for file, content in zip(files, (lines, texts), strict=True):
        (folder / file).write_text("\n".join(content) + "\n", encoding="utf-8")
    return folder


def _settings(folder: Path) -> list[str]:
    files = (
        {"path": ""}
        if (folder / "movies.dat").exists()
        else {"interactions": "interactions.csv", "items": "items.jsonl"}
    )
    return [word for key, file in files.items() for word in ("--set", f"prepare.source.{key}={folder / file}")]


def test_notes_on_expectations_stand_in_markdown_too() -> None:
    shown = markdown.render_markdown(Expected((expecting(least=0.045),)).noted(TABLE, 9))
    assert "- expected NDCG@10 at least .0450 (Author 2020): reached, .0471\n" in shown
