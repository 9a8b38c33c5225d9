"""Ablations, through the real command line: variants of one recipe in one store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reaemb_bench.core.runs import history, ranks_of
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.paper_variants import variants_in
from reaemb_bench.evaluation.summary import over_seeds, summarise
from reaemb_bench.experiments.ablate import read_ablation
from reaemb_bench.experiments.variants import Variant
from tests.conftest import TOYS, Said

Command = Callable[..., Said]

PARTS = Path(__file__).parents[1] / "helpers" / "ablate_steps.py"
STORE = Path(".reaemb-bench/store")


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a recipe of two seeds and of a file with variants of it; `log` says which steps ran."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log"
    recipe = f"""
title = "Toys"
steps = ["prepare", "embed", "polish", "train", "rank"]
seeds = [1, 2]
embedder_seed = 0
prepare = {{ use = "{TOYS}:Prepare", users = 8, log = "{log}" }}
embed.use = "{TOYS}:Embed"
polish = {{ use = "{PARTS}:Polish", log = "{log}" }}
train = {{ use = "{TOYS}:Fit", log = "{log}" }}
rank.use = "{PARTS}:Score"
"""
    (tmp_path / "toy.toml").write_text(recipe, encoding="utf-8")
    file = f"""
title = "What polish is worth"
recipe = "toy.toml"
[variants."no polish"]
drop = ["polish"]
why = "is it worth its price?"
[variants."peeking"]
set = {{ allow_leaks = true, polish = {{ use = "{PARTS}:Peeking", log = "{log}", factor = 5 }} }}
[variants."same"]
set.train.rate = 0.1
"""
    (tmp_path / "file.toml").write_text(file, encoding="utf-8")
    return tmp_path


def ran(folder: Path) -> Counter[str]:
    file = folder / "log"
    return Counter(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else Counter()


def table(file: str, place: int = 0) -> dict[str, dict[str, Any]]:
    """The cells of a JSON file by method."""
    rows = json.loads(Path(file).read_text(encoding="utf-8"))["tables"][place]["rows"]
    return {row["method"]: row["cells"] for row in rows}


def notes(file: str) -> list[str]:
    made: list[str] = json.loads(Path(file).read_text(encoding="utf-8"))["tables"][0]["notes"]
    return made


def test_only_what_an_edit_changes_is_computed_again(command: Command, toys: Path) -> None:
    said = command("ablate", "toy.toml", "--swap", "polish.factor=3", "--swap", "train.rate=0.7", "--drop", "polish")
    assert said.code == 0, said.err
    assert "toy and 3 variants: 20 of 20 steps to compute" in said.out
    assert ran(toys) == {"prepare": 1, "polish 2": 1, "polish 3": 1, "fit": 2 * 4}
    assert "computed 20 steps, 0 cached" in said.out
    again = command("ablate", "toy.toml", "--swap", "polish.factor=3", "--swap", "train.rate=0.9")
    assert "4 of 16 steps to compute" in again.out
    assert ran(toys) == {"prepare": 1, "polish 2": 1, "polish 3": 1, "fit": 2 * 5}


def test_numbers_are_those_of_the_ranks_and_differences_those_of_the_numbers(command: Command, toys: Path) -> None:
    said = command("ablate", "toy.toml", "--drop", "polish", "--swap", "train.rate=0.75", "--out", "t.json")
    assert said.code == 0, said.err
    results, runs = Store(STORE), history(Store(STORE))
    assert {run.part_of for run in runs} == {"ablation toy"}
    names = ["toy", "toy without polish", "toy (train.rate=0.75)"]
    cells, differences = table("t.json"), table("t.json", 1)
    assert list(cells) == list(differences) == names
    for run in runs:
        row = run.name
        spread = over_seeds([summarise(ranks) for ranks in ranks_of(run, results)])["full/ndcg@10"]
        assert (cells[row]["NDCG@10"]["value"], cells[row]["NDCG@10"]["sd"]) == (spread.mean, spread.sd)
        assert differences[row]["NDCG@10"]["value"] == spread.mean
        if row != "toy":
            expected = spread.mean - cells["toy"]["NDCG@10"]["value"]
            assert differences[row]["Δ NDCG@10"]["value"] == pytest.approx(expected)
    assert len({cell["NDCG@10"]["value"] for cell in cells.values()}) == 3


def test_each_leaves_out_every_step_that_can_be_done_without(command: Command, toys: Path) -> None:
    said = command("ablate", "toy.toml", "--each", "--swap", "train.rate=0.7", "--out", "t.json")
    assert said.code == 0, said.err
    assert list(table("t.json")) == ["toy", "toy (train.rate=0.7)", "toy without polish"]
    # What --drop asks for already is not there twice.
    command("ablate", "toy.toml", "--each", "--drop", "polish", "--out", "t.json")
    assert list(table("t.json")) == ["toy", "toy without polish"]
    assert [each.name for each in read_ablation("quickstart", each_step=True).variants] == [
        "quickstart without lrcl",
        "quickstart without crrl",
        "quickstart without reduce",
    ]


def test_what_commas_divide_goes_together(toys: Path) -> None:
    (variant,) = read_ablation("quickstart", drops=("crrl, llm.reasoner",), sets=("llm.pooling=mean",)).variants
    assert variant.name == "quickstart (llm.pooling=mean) without crrl, llm.reasoner"
    assert "crrl" not in variant.recipe.steps
    assert variant.recipe.steps["llm"].spec()["reasoner"]["use"] == "none"


def test_a_setting_can_be_swapped_that_the_recipe_leaves_unsaid(toys: Path) -> None:
    (variant,) = read_ablation("quickstart", swaps=("llm.reasoner.thoughts=2",)).variants
    assert variant.recipe.steps["llm"].spec()["reasoner"]["thoughts"] == 2


def test_a_file_names_variants_marks_leaks_and_notes_what_changes_nothing(command: Command, toys: Path) -> None:
    said = command("ablate", "file.toml", "--out", "t.json")
    assert said.code == 0, said.err
    read = json.loads(Path("t.json").read_text(encoding="utf-8"))
    assert read["title"] == "What polish is worth"
    for made in read["tables"]:
        assert [(row["method"], row["leaks"]) for row in made["rows"]] == [
            ("toy", False),
            ("no polish", False),
            ("peeking", True),
        ]
    assert "no polish: is it worth its price?" in notes("t.json")
    assert "not shown: same: it changes nothing in this base" in notes("t.json")
    assert any("looks at held-out data on purpose (polish)" in note for note in notes("t.json"))


def test_only_set_and_base_choose_from_a_file(command: Command, toys: Path) -> None:
    (toys / "other.toml").write_text('extends = "toy.toml"\ntrain.rate = 0.9\n', encoding="utf-8")
    said = command(
        "ablate", "file.toml", "--only", "no polish", "--only", "same", "--base", "other.toml", "--out", "t.json"
    )
    assert said.code == 0, said.err
    assert list(table("t.json")) == ["other", "no polish", "same"]
    command("ablate", "file.toml", "--only", "no polish", "--set", "seeds=[5]", "--out", "t.json")
    assert table("t.json")["no polish"]["NDCG@10"]["sd"] is None


@pytest.mark.parametrize(
    ("factor", "reason"),
    [
        (0, "missing: toy (polish.factor=0): nothing would be left of the vectors; raise factor"),
        (-1, "missing: toy (polish.factor=-1): RuntimeError: out of polish"),
    ],
)
def test_a_variant_that_fails_is_missing_and_the_others_go_on(
    command: Command, toys: Path, factor: int, reason: str
) -> None:
    edits = ("--swap", f"polish.factor={factor}", "--drop", "polish")
    said = command("ablate", "toy.toml", *edits, "--out", "t.json")
    assert said.code == 1
    assert list(table("t.json")) == ["toy", "toy without polish"]
    assert reason in notes("t.json")
    again = command("ablate", "toy.toml", *edits)
    assert again.code == 1
    assert ran(toys) == {"prepare": 1, "polish 2": 1, f"polish {factor}": 2, "fit": 4}


def test_a_variant_that_judges_other_users_is_missing(command: Command, toys: Path) -> None:
    said = command("ablate", "toy.toml", "--swap", "rank.every=2", "--out", "t.json")
    assert said.code == 1
    assert list(table("t.json")) == ["toy"]
    assert any(
        note.startswith("missing: toy (rank.every=2): toy and toy (rank.every=2) have different users")
        for note in notes("t.json")
    )


REFUSED = {
    ("quickstart", "--drop", "lrcl.reasoner"): "nothing at 'lrcl.reasoner'. Did you mean 'llm.reasoner'?",
    ("quickstart", "--drop", "reasoner"): "Did you mean 'llm.reasoner'?",
    ("quickstart", "--swap", "crrl.rewrad=ndcg"): "Did you mean 'crrl.reward'?",
    ("quickstart", "--swap", "crrl.reward=ncdg"): "no reward is called 'ncdg'. Did you mean 'ndcg'?",
    ("quickstart", "--swap", "crrl=x"): "--swap crrl=x: give step.setting=value",
    ("quickstart", "--swap", "crrl.reward=softmax-likelihood"): "changes nothing on the way to the ranks",
    ("quickstart", "--drop", "floors"): "changes nothing on the way to the ranks",
    ("quickstart", "--drop", "encode"): "--drop encode: alignment: needs Vectors",
    ("quickstart", "--drop", "rank"): "--drop rank: ranks nothing",
    ("quickstart", "--drop", "crrl.reward"): "a reward is required here",
    ("quickstart", "--drop", "crrl", "--drop", "crrl"): "two variants are called 'quickstart without crrl'",
    ("quickstart",): "nothing to compare",
    ("quickstart", "--drop", "crrl", "--only", "x"): "--only and --base are for files that name variants",
    ("quickstart", "--drop", "crrl", "--out", "t.xls"): "the ending says the format",
    ("file.toml", "--only", "nopolish"): "no variant has this name. Did you mean 'no polish'?",
    ("file.toml", "--base", "nowhere.toml"): "there is no recipe nowhere.toml",
}


@pytest.mark.parametrize("words", list(REFUSED), ids=" ".join)
def test_a_mistaken_command_is_refused_in_one_line_and_nothing_runs(
    command: Command, toys: Path, words: tuple[str, ...]
) -> None:
    said = command("ablate", *words)
    assert said.code == 2
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert REFUSED[words] in said.err
    assert not STORE.exists()


MISTAKES = {
    "variant.x.drop = ['polish']": "variants: this setting is required",
    "titles = 'x'\nvariants.x.drop = ['polish']": "titles: no setting is called 'titles'. Did you mean 'title'?",
    "variants.x.drops = ['polish']": "variants.x.drops: no setting is called 'drops'. Did you mean 'drop'?",
    "variants.x.drop = 'polish'": "variants.x.drop: ",
    "variants.x.drop = ['pollish']": "variants.x: the recipe has nothing at 'pollish'. Did you mean 'polish'?",
    "variants.x.set.train.rat = 1": "variants.x: the recipe has nothing at 'train.rat'. Did you mean 'train.rate'?",
    "variants.x.set.train.rate = 'fast'": "variants.x.train.rate: ",
    "variants.x.set.trains.rate = 1": "variants.x.trains: this table belongs to no step. Did you mean 'train'?",
    "variants.toy.drop = ['polish']": "two variants are called 'toy'",
    "variants = {}": "variants: ",
}


@pytest.mark.parametrize("line", list(MISTAKES))
def test_a_mistake_in_a_file_names_file_and_place(command: Command, toys: Path, line: str) -> None:
    (toys / "file.toml").write_text(f'recipe = "toy.toml"\n{line}\n', encoding="utf-8")
    said = command("ablate", "file.toml")
    assert said.code == 2
    assert said.err.count("\n") == 1, said.err
    assert MISTAKES[line] in said.err
    assert not ran(toys)


def test_every_shipped_variant_plans_and_differs_from_the_base_and_the_others() -> None:
    ablation = read_ablation(
        "ablations",
    )
    assert len(ablation.variants) == 33
    assert ablation.equal == ()
    everyone = [ablation.base, *ablation.variants]
    assert [
        (one.name, other.name) for one in everyone for other in everyone if one is not other and one.equals(other)
    ] == []
    assert {each.name: each.plans[0].leaks for each in everyone if each.plans[0].leaks} == {
        "D1 test answers in reward": ("crrl",)
    }


def test_shipped_variants_are_the_defects_that_they_are_named_after() -> None:
    ablation = read_ablation(
        "ablations",
    )

    def defects(variant: Variant) -> set[str]:
        return {use.variant.defect for use in variants_in(variant.recipe)}

    base = defects(ablation.base)
    named = {each.name.split()[0]: defects(each) - base for each in ablation.variants if each.name.startswith("D")}
    assert {"D1", "D2", "D3", "D4", "D6", "D7", "D10", "D12", "D14", "D18", "D19"} == named.keys()
    for defect, found in named.items():
        assert defect in found
    assert "D5" in next(defects(each) for each in ablation.variants if "(D5)" in each.name)


def test_the_road_of_the_method_on_simulated_data(command: Command, tmp_path: Path) -> None:
    cheap = {
        "prepare.source.users": 40,
        "prepare.source.items": 30,
        "lrcl.steps": 1,
        "crrl.steps": 1,
        "train.epochs": 1,
        "reduce.reducer.dimensions": 8,
        "llm.backbone": "{ use = 'tiny', hidden = 16, layers = 1, vocabulary = 300 }",
    }
    sets = [word for path, value in cheap.items() for word in ("--set", f"{path}={value}")]
    said = command("ablate", "quickstart", "--drop", "crrl", "--threads", 1, "--out", "t.json", *sets)
    assert said.code == 0, said.err
    computed = Counter(
        json.loads(file.read_text(encoding="utf-8"))["step"] for file in (STORE / "results").glob("*/manifest.json")
    )
    shared = {"prepare": 1, "llm": 1, "lrcl": 1, "crrl": 1, "floors": 1}
    assert computed == {**shared, "encode": 2, "alignment": 2, "reduce": 2, "train": 2, "rank": 2}
    base, without, floor = list(table("t.json"))[:3]
    assert base.startswith("quickstart (prepare.source.users=40, ") and base.endswith(" 3 more settings changed)")
    assert (without, floor) == (f"{base} without crrl", "random")
    assert table("t.json", 1)[without]["Δ NDCG@10"]["verdict"]
