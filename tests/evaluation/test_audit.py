"""The audit finds planted leaks, clears the shipped recipes, and names the paper variants in use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars
import pytest

from reaemb_bench.core.component import Component
from reaemb_bench.core.execute import execute
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load
from reaemb_bench.core.registry import find, kinds, names
from reaemb_bench.core.store import Store
from reaemb_bench.data.filters import DropUsersOfRareItems
from reaemb_bench.data.interactions import SplitInteractions
from reaemb_bench.data.sources.simulated import Simulated
from reaemb_bench.data.splits import LeaveLastTwo, Temporal
from reaemb_bench.evaluation.leak_test import Exchanged, Parts, Verdict, find_leaks, shorten
from reaemb_bench.evaluation.paper_variants import VARIANTS, variants_in
from tests.conftest import Said
from tests.core.test_recipes import PAPER, RECIPES

Command = Callable[..., Said]

LEAKY = Path(__file__).parents[1] / "helpers" / "leaky_components.py"
TOYS = Path(__file__).parents[1] / "helpers" / "toy_steps.py"
SMALL_SHOP = 'prepare.source={use = "simulated", users = 40, items = 40, clusters = 4}'
MACHINE = Machine(device="cpu", mlflow="")


def planted(folder: Path, *steps: str, split: str = f"{LEAKY}:Careless") -> Path:
    """A recipe of simulated data, a split, and plug-in steps after it."""
    lines = [f"steps = {['prepare', *(step.partition(':')[0].lower() for step in steps)]}"]
    lines += ["[prepare]", "source = { use = 'simulated', users = 40, items = 30 }", f"split = '{split}'"]
    for step in steps:
        name, _, part = step.partition(":")
        lines += [f"[{name.lower()}]", f"use = '{LEAKY}:{name}'", *([f"part = '{part}'"] if part else [])]
    file = folder / "planted.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def verdicts(folder: Path, *steps: str) -> list[Verdict]:
    def compute(planned, where) -> None:  # type: ignore[no-untyped-def]
        execute(planned, where, MACHINE, lambda event: None)

    return list(find_leaks(load(planted(folder, *steps)), 42, Store(folder / "store"), compute).verdicts)


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        ("Squint:test", "leak"),
        ("Squint:validation", "leak"),
        ("SquintWhileTuning:test", "leak"),
        ("SquintWhileTuning:validation", "identical"),
        ("Fickle", "unrepeatable"),
    ],
)
def test_a_step_may_depend_on_what_it_declares_and_on_nothing_else(tmp_path: Path, step: str, outcome: str) -> None:
    corpus, vectors = verdicts(tmp_path, step)
    assert (corpus.artifact, corpus.outcome) == ("Corpus", "identical")
    assert (vectors.step, vectors.artifact, vectors.outcome) == (step.partition(":")[0].lower(), "Vectors", outcome)


def test_a_leak_is_told_with_code_1_and_leaves_no_results_behind(command: Command, tmp_path: Path) -> None:
    said = command("audit", planted(tmp_path, "Squint"))
    assert said.code == 1, said.err
    assert "LEAK: Vectors of squint depends on validation and test items" in said.out
    assert "of 40 validation targets and" in said.out
    assert said.out.splitlines()[-1] == "verdict: LEAK in squint"
    assert not list(Path(".reaemb-bench/store").iterdir())


@pytest.mark.slow
def test_a_leak_in_a_co_occurrence_component_is_found_where_it_enters(command: Command) -> None:
    edits = [SMALL_SHOP, f"prepare.split={LEAKY}:Careless", f"crrl.cooccurrence={LEAKY}:KnowsTheTest"]
    said = command("audit", "quickstart", *(word for edit in edits for word in ("--set", edit)), "--drop", "lrcl")
    assert said.code == 1, said.err
    assert [line for line in said.out.splitlines() if line.startswith("LEAK")] == [
        "LEAK: Encoder of crrl depends on validation and test items"
    ]
    lines = {line.split()[0]: line for line in said.out.splitlines() if " Vectors " in line}
    assert "with those of crrl" in lines["encode"]
    assert "with those of encode" in lines["reduce"]


@pytest.mark.slow
def test_the_quickstart_does_not_leak(command: Command) -> None:
    said = command("audit", "quickstart", "--set", SMALL_SHOP)
    assert said.code == 0, said.out + said.err
    assert "shortened for the audit (--full prevents it): lrcl.steps 30 → 2, crrl.steps 60 → 2" in said.out
    assert "no variant of the paper's released code is in use" in said.out
    after = said.out.partition("what changed")[2]
    unchanged = [line.split()[0] for line in after.splitlines() if line.rstrip().endswith("nothing")]
    assert unchanged == ["prepare", "llm", "lrcl", "crrl", "encode", "alignment", "reduce", "train"]
    assert said.out.splitlines()[-1] == "verdict: no leak found"


@pytest.mark.slow
def test_the_settings_of_reaemb_full_do_not_leak(command: Command) -> None:
    edits = [SMALL_SHOP, "llm.backbone=tiny", "reduce.reducer.dimensions=16", "lrcl.batch_size=8"]
    said = command("audit", "reaemb_full", *(word for edit in edits for word in ("--set", edit)))
    assert said.code == 0, said.out + said.err
    assert "LEAK" not in said.out


def test_a_declared_leak_is_shown_as_declared(command: Command) -> None:
    edits = [SMALL_SHOP, "allow_leaks=true", "crrl.use=reinforce-leaky-paper", "crrl.reward=ndcg"]
    said = command("audit", "quickstart", *(word for edit in edits for word in ("--set", edit)), "--drop", "lrcl")
    assert said.code == 0, said.out + said.err
    lines = [line.split(maxsplit=2) for line in said.out.partition("what changed")[2].splitlines()]
    told = {line[0]: line[2].rstrip() for line in lines if len(line) == 3}
    assert told["crrl"] == "declared leak: not compared"
    assert told["encode"] == "declared leak of crrl: not compared"
    assert told["llm"].endswith("nothing")


def test_a_step_that_asks_for_more_than_it_declares_is_a_leak(command: Command, tmp_path: Path) -> None:
    file = planted(tmp_path, "Squint")
    file.write_text(file.read_text(encoding="utf-8").replace(f"{LEAKY}:Squint", f"{TOYS}:Peek"), encoding="utf-8")
    said = command("audit", file)
    assert said.code == 1
    assert "verdict: LEAK, squint would read more than declared" in said.out


def test_what_each_step_reads_is_shown_without_running_it(command: Command) -> None:
    said = command("audit", "paper/yelp", "--dry")
    assert said.code == 0, said.err
    lines = {line.split()[0]: " ".join(line.split()) for line in said.out.splitlines() if line.strip()}
    assert lines["llm"] == "llm Corpus Encoder 0 % 0 %"
    assert said.out.splitlines()[-1].startswith("verdict: no step reads more than it declares")
    assert lines["crrl"].startswith("crrl Corpus, TestTargets, Encoder Encoder 100 % 100 % declared leak")
    assert lines["reduce"] == "reduce Vectors Vectors 0 % 0 % and what crrl made of held-out rows"
    assert lines["rank"] == "rank Corpus, TestTargets, Ranker Ranks 100 % 100 % judge"
    assert not Path(".reaemb-bench").exists()


def test_mistakes_are_told_as_everywhere(command: Command, toy_recipe: Path, tmp_path: Path) -> None:
    own_data = command("audit", toy_recipe)
    assert own_data.code == 2
    assert "only where a step 'prepare' divides the data" in own_data.err
    assert command("audit", toy_recipe, "--dry").code == 0
    alone = command("audit", planted(tmp_path), "--set", "prepare.source.users=1")
    assert alone.code == 2
    assert "no held-out item could be exchanged" in alone.err


@pytest.mark.parametrize("parts", ["test", "validation and test"])
@pytest.mark.parametrize("split", [LeaveLastTwo(), Temporal()], ids=["leave-last-two", "temporal"])
def test_an_exchange_moves_held_out_items_and_nothing_else(split: Component, parts: Parts) -> None:
    def divided(parts: Parts) -> tuple[polars.DataFrame, SplitInteractions]:
        source = Exchanged(
            source=Simulated(users=80, items=40),
            filters=(DropUsersOfRareItems(user_minimum=6),),
            split=split,
            seed=3,
            parts=parts,
        )
        data = source.read(MACHINE)
        assert DropUsersOfRareItems(user_minimum=6).apply(data).frame.equals(data.frame)
        return data.frame, split.apply(data, 3)  # type: ignore[attr-defined]

    frame, before = divided("nothing")
    other, after = divided(parts)
    assert other.drop("item").equals(frame.drop("item"))
    assert sorted(other["item"]) == sorted(frame["item"])
    assert after.training.equals(before.training)
    assert after.validation.equals(before.validation) == (parts == "test")
    assert not after.test.equals(before.test)
    assert sorted(after.test["item"]) == sorted(before.test["item"])


def test_only_steps_and_epochs_are_cut() -> None:
    recipe = load("reaemb_full", ["lrcl.steps=1"], ["crrl.steps"])
    cut, lines = shorten(recipe)
    assert lines == ("crrl.steps unlimited → 2", "train.epochs 40 → 2")
    assert {name: step.spec() for name, step in cut.steps.items()} == {
        name: step.spec()
        for name, step in load("reaemb_full", ["lrcl.steps=1", "crrl.steps=2", "train.epochs=2"]).steps.items()
    }


def numbers(*edits: str, recipe: str = "quickstart") -> list[str]:
    return [use.variant.defect for use in variants_in(load(recipe, edits))]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_name_their_variants(name: str) -> None:
    expected = {"D1", "D3", "D4", "D5", "D6", "D7", "D9", "D12", "D18", "D19"}
    expected |= {"D14"} if "gru4rec" in name else set() if "bert4rec" in name else {"D2"}
    expected |= {"D17"} if "yelp" in name else set()
    assert {use.variant.defect for use in variants_in(load(name))} == expected


@pytest.mark.parametrize("name", RECIPES)
def test_sound_recipes_name_none(name: str) -> None:
    assert numbers(recipe=name) == []


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ("train.head={use = 'gru4rec', targets = 'last', read_padding = true}", ["D12", "D14"]),
        ("train.head={use = 'bert4rec', attend_padding = true}", ["D12"]),
        ("llm.reasoner={use = 'latent-thought', scale = 'none'}", ["D19"]),
        (
            "prepare.source={use = 'table', interactions = 'a.csv', items = 'b.csv', attributes = ['stars', 'city']}",
            ["D17"],
        ),
    ],
)
def test_a_single_choice_is_named(edit: str, named: list[str]) -> None:
    assert numbers(edit) == named


def test_variants_speak_of_settings_that_exist() -> None:
    for variant in VARIANTS:
        kind = next(kind for kind in kinds() if variant.component in names(kind))
        assert set(variant.settings) <= set(find(kind, variant.component).model_fields), variant


def test_a_place_says_which_component_is_meant() -> None:
    uses = variants_in(load("paper/yelp"))
    assert {use.variant.defect: use.path for use in uses}["D3"] == "train.items"
    assert next(use.variant.choice for use in uses if use.variant.defect == "D3") == "zero_last = true"
