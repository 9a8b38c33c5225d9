"""Data cards: their counts, their curves, whether order matters, and the folder they are written to."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from reaemb_bench.catalogue import CATALOGUE
from reaemb_bench.core.artifacts import Corpus, Sequences, TestTargets, ValidationTargets
from reaemb_bench.core.registry import find
from reaemb_bench.data.interactions import About
from reaemb_bench.report.data_card import (
    Bin,
    Card,
    as_json,
    bars,
    columns,
    in_random_order,
    length_bins,
    lengths_png,
    long_tail,
    long_tail_png,
    make_card,
    percent,
    sequentiality,
)
from reaemb_bench.report.data_card import render_markdown as as_markdown
from reaemb_bench.report.data_card import render_terminal as on_screen
from tests.conftest import Said

Command = Callable[..., Said]
Parts = tuple[Corpus, ValidationTargets, TestTargets]

COUNTS = st.lists(st.integers(0, 3000), min_size=1, max_size=60)


def parts(histories: list[list[int]], validation: list[int], test: list[int], items: int) -> Parts:
    """A data set of users who each have a history, a validation and a test target."""
    everyone = np.arange(len(histories), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in histories])]).astype(np.int64)
    training = Sequences(np.array([item for each in histories for item in each], dtype=np.int32), offsets)
    keys = tuple(f"i{item}" for item in range(items))
    corpus = Corpus("shop", training, keys, tuple(f"u{user}" for user in everyone), "Describe:", keys, keys)
    nothing = np.zeros((len(histories), 0), dtype=np.int32)
    validation_targets = ValidationTargets(everyone, np.array(validation, dtype=np.int32), nothing)
    known = training.followed_by(everyone, validation_targets.targets)
    return corpus, validation_targets, TestTargets(everyone, np.array(test, dtype=np.int32), nothing, known)


def card_of(made: Parts, facts: dict[str, Any] | None = None, tail: int = 20, short: int = 10) -> Card:
    return make_card(*made, facts or {}, about=About(), prepared={}, tail=tail, short=short, seed=1)


def chains(users: int, ordered: bool, items: int = 60, length: int = 8) -> Parts:
    """Users who walk some steps of a ring of items, or see the items of such a walk in random order."""
    rng = np.random.default_rng(1)
    walks = (np.arange(length) + rng.integers(items, size=(users, 1))) % items
    seen = (walks if ordered else rng.permuted(walks, axis=1)).tolist()
    return parts([each[:-2] for each in seen], [each[-2] for each in seen], [each[-1] for each in seen], items)


def test_counts_are_those_done_by_hand() -> None:
    card = card_of(parts([[0, 1, 0], [1], [1, 2, 3, 3]], [4, 1, 0], [5, 4, 1], items=6), tail=3, short=3)
    made = as_json(card)
    assert made["size"] == {
        "users": 3,
        "items": 6,
        "interactions": 14,
        "density": pytest.approx(10 / 18, rel=1e-5),
        "repeated_pairs": 4,
        "training_interactions": 8,
        "validation_users": 3,
        "test_users": 3,
    }
    assert made["users"] == {
        "mean": pytest.approx(14 / 3, rel=1e-5),
        "median": 5.0,
        "min": 3,
        "max": 6,
        "short_history_share": pytest.approx(1 / 3, rel=1e-5),
        "without_training": 0,
    }
    items = made["items"]
    assert (items["mean"], items["min"], items["max"]) == (pytest.approx(8 / 6, rel=1e-5), 0, 3)
    assert (items["tail_share"], items["cold"]) == (0.5, 2)
    assert made["targets"] == {
        "validation_tail_share": pytest.approx(1 / 3, rel=1e-5),
        "validation_cold": 1,
        "test_tail_share": 0.0,
        "test_cold": 2,
    }


def test_texts_are_counted_and_what_nobody_noted_is_no_number() -> None:
    corpus, validation_targets, test_targets = parts([[0, 1], [2, 0]], [1, 1], [2, 2], items=3)
    corpus = replace(corpus, texts=("title is A", "title is A", "title is Long"))
    known = as_json(
        card_of((corpus, validation_targets, test_targets), {"items_without_text": 2, "items_without_title": 1})
    )["texts"]
    assert known["duplicates"] == 1
    assert known["characters_max"] == 13
    assert known["characters_mean"] == 11
    assert (known["without_text"], known["without_title"]) == (2, 1)
    assert as_json(card_of((corpus, validation_targets, test_targets)))["texts"]["without_text"] is None


@given(COUNTS)
def test_the_long_tail_rises_ever_more_slowly_to_everything(counts: list[int]) -> None:
    curve = np.array(long_tail(np.array(counts, dtype=np.int64)))
    assert curve.shape == (101,)
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(1.0 if any(counts) else 0.0)
    steps = np.diff(curve)
    assert (steps >= -1e-12).all()
    assert (np.diff(steps) <= 1e-9).all()


def test_the_long_tail_of_equal_items_is_straight_and_of_one_hit_a_cliff() -> None:
    assert long_tail(np.full(7, 3, dtype=np.int64)) == pytest.approx(np.linspace(0, 1, 101))
    cliff = long_tail(np.array([0, 0, 0, 9], dtype=np.int64))
    assert cliff[25] == cliff[60] == 1.0
    assert cliff[10] == pytest.approx(0.4)


@given(COUNTS)
def test_every_length_lies_in_one_bin_and_bins_have_no_gaps(lengths: list[int]) -> None:
    bins = length_bins(np.array(lengths, dtype=np.int64))
    assert sum(each.users for each in bins) == len(lengths)
    for each in bins:
        assert each.users == sum(each.low <= length <= each.high for length in lengths)
    assert all(before.high + 1 == after.low for before, after in pairwise(bins))
    assert bins[0].users and bins[-1].users


def test_bins_have_round_borders() -> None:
    lengths = np.array([5, 6, 9, 10, 204], dtype=np.int64)
    words = [each.words for each in length_bins(lengths)]
    assert words[:3] == ["5-6", "7-9", "10-14"]
    assert words[-1] == "200-299"
    assert length_bins(np.zeros(0, dtype=np.int64)) == ()
    assert Bin(2, 2, 1).words == "2"
    assert Bin(1000, 1499, 1).words == "1,000-1,499"


def test_random_order_keeps_each_users_items() -> None:
    rng = np.random.default_rng(0)
    sequences = Sequences(np.arange(300, dtype=np.int32), np.array([0, 0, 50, 51, 300], dtype=np.int64))
    mixed = in_random_order(sequences, rng)
    assert not np.array_equal(mixed.of(3), sequences.of(3))
    for user in range(sequences.users):
        assert np.array_equal(np.sort(mixed.of(user)), sequences.of(user))


def test_walks_lose_nearly_all_without_their_order_and_disorder_loses_nothing() -> None:
    walks = chains(400, ordered=True)
    found = sequentiality(*walks[:2], seed=3)
    assert found is not None
    loss = found.by_metric["ndcg@10"]
    assert loss.ordered > loss.shuffled + 0.1
    assert 0 < loss.low < loss.ordered - loss.shuffled < loss.high
    assert loss.share == pytest.approx(1 - loss.shuffled / loss.ordered)
    noise = chains(400, ordered=False)
    mixed = sequentiality(*noise[:2], seed=3)
    assert mixed is not None
    assert mixed.by_metric["ndcg@10"].low < 0 < mixed.by_metric["ndcg@10"].high


def test_histories_of_one_item_have_no_order_to_lose() -> None:
    corpus, validation_targets, _ = parts([[0], [1], [0], [1]] * 3, [1, 0, 1, 0] * 3, [2] * 12, items=3)
    found = sequentiality(corpus, validation_targets, seed=3)
    assert found is not None
    for loss in found.by_metric.values():
        assert loss.shuffled == pytest.approx(loss.ordered)
        assert (loss.sd, loss.low, loss.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_order_is_judged_without_the_test_targets() -> None:
    corpus, validation_targets, test_targets = chains(50, ordered=True)
    other = replace(test_targets, targets=test_targets.targets[::-1].copy())
    assert (
        card_of((corpus, validation_targets, test_targets)).sequentiality
        == card_of((corpus, validation_targets, other)).sequentiality
    )


def test_a_large_catalogue_asks_fewer_users_and_says_so() -> None:
    made = chains(50, ordered=True)
    found = sequentiality(*made[:2], seed=3, most_scores=60 * 20)
    assert found is not None
    assert (found.users, found.of) == (20, 50)
    assert "20 of 50 validation targets" in as_markdown(replace(card_of(made), sequentiality=found))


def test_long_histories_are_counted_for_fewer_users_and_the_card_says_so() -> None:
    chained = chains(50, ordered=True)
    whole, part = (sequentiality(*chained[:2], seed=3, most_pairs=pairs) for pairs in (10**9, 200))
    assert whole is not None
    assert part is not None
    assert (whole.counted, part.users, part.counted_of) == (50, 50, 50)
    assert 0 < part.counted < 50
    assert f"counted on {part.counted} of 50 users" in as_markdown(replace(card_of(chained), sequentiality=part))
    assert "counted on" not in as_markdown(replace(card_of(chained), sequentiality=whole))


def test_the_card_says_how_full_each_attribute_is() -> None:
    corpus, validation_targets, test_targets = chains(50, ordered=True)
    facts = {"items_with: brand": corpus.items // 2, "items_without_text": 0}
    about, options = About(), {"prepared": {}, "tail": 20, "short": 10, "seed": 0}
    card = make_card(corpus, validation_targets, test_targets, facts, about=about, **options)  # type: ignore[arg-type]
    assert card.sections["texts"]["with_brand_share"] == ("items with 'brand'", corpus.items // 2 / corpus.items)


def test_one_target_is_too_few_to_tell() -> None:
    card = card_of(parts([[0, 1]], [1], [2], items=3))
    assert card.sequentiality is None
    assert as_json(card)["sequentiality"] is None
    assert "too few validation targets" in as_markdown(card).lower()


def test_shares_read_well_whatever_their_size() -> None:
    assert [percent(share) for share in (1, 0.80312, 0.000733523, 0.0000000123)] == [
        "100 %",
        "80.3 %",
        "0.0734 %",
        "0.00000123 %",
    ]


def test_blocks_are_as_high_and_as_long_as_the_numbers() -> None:
    assert columns([0, 0.25, 0.5, 1], height=2) == ["   █", " ▄██"]
    assert bars([8, 4, 0, 0.001], width=2) == ["██", "█", "", "▏"]
    assert bars([], width=2) == []
    assert bars([0, 0], width=2) == ["", ""]


def test_the_screen_needs_80_columns() -> None:
    card = card_of(chains(3000, ordered=True), {"removed: rows": "1,203 interactions"})
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(on_screen(card))
    lines = [line.rstrip() for line in screen.export_text().splitlines()]
    assert max(len(line) for line in lines) <= 80
    assert "…" not in "".join(lines)
    assert any(line.split() == ["rows", "1,203", "interactions"] for line in lines)
    assert sum("┤" in line for line in lines) == 6
    assert any(line.split()[0] == "7-9" and line.split()[-1] == "3,000" for line in lines if line.strip())


@pytest.mark.slow
def test_pictures_are_800_pixels_wide_and_carry_no_date() -> None:
    for picture in (long_tail_png(long_tail(np.arange(9)), "shop $5_a"), lengths_png((Bin(5, 6, 3),), "shop $5_a")):
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", picture[16:24]) == (800, 450)
        assert b"tEXt" not in picture
        assert b"tIME" not in picture


def test_a_persons_own_style_does_not_change_the_pictures() -> None:
    import matplotlib

    plain = long_tail_png(long_tail(np.arange(9)), "shop")
    with matplotlib.rc_context({"axes.facecolor": "red", "savefig.dpi": 300, "font.size": 3}):
        assert long_tail_png(long_tail(np.arange(9)), "shop") == plain
        assert matplotlib.rcParams["font.size"] == 3


SHOP = """
from dataclasses import replace
from typing import ClassVar
from reaemb_bench import Corpus
from reaemb_bench import Component
from reaemb_bench import Context
from reaemb_bench.data.interactions import About
from reaemb_bench.data.sources.simulated import Simulated
from reaemb_bench.data.prepare import Prepare


class Shop(Component):
    name: str = "shop"
    about: ClassVar[About] = About("https://example.org/shop", "for research alone", "Shopkeeper, 2020")

    def read(self, machine):
        return replace(Simulated(users=40, items=30).read(machine), name=self.name)


class Untested(Prepare):
    def run(self, context: Context) -> Corpus:
        return super().run(context)[0]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    file = tmp_path / "shop.toml"
    file.write_text('steps = ["prepare"]\n[prepare]\nsource = "shop.py:Shop"\n', encoding="utf-8")
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_card_is_printed_and_written_and_the_same_again(command: Command, shop: Path) -> None:
    said = command("data", "describe", shop)
    assert said.code == 0, said.err
    assert "written to cards/shop" in said.out
    assert "for research alone" in said.out
    first = contents(Path("cards/shop"))
    assert set(first) == {"card.md", "card.json", "long_tail.png", "lengths.png"}
    prepared = command("data", "prepare", shop)
    assert "cached" in prepared.out
    digest = json.loads(first["card.json"])["sha256"]
    assert f"sha256 of everything prepared: {digest}" in prepared.out
    assert digest in said.out.replace("\n", "")
    shutil.rmtree(".reaemb-bench")
    assert command("data", "describe", shop, "--out", "again").code == 0
    assert contents(Path("again")) == first


def test_the_written_card_names_terms_pictures_and_what_was_prepared(command: Command, shop: Path) -> None:
    command("data", "describe", shop, "--set", 'prepare.filters=["k-core"]', "--out", "here")
    text = Path("here/card.md").read_text(encoding="utf-8")
    for line in ("- home: https://example.org/shop", "- licence: for research alone", "- citation: Shopkeeper, 2020"):
        assert line in text
    assert all(f"]({name})" in text for name in ("long_tail.png", "lengths.png"))
    written = json.loads(Path("here/card.json").read_text(encoding="utf-8"))
    assert written["removed"] == {"k-core": "nothing"}
    assert written["prepared"]["filters"][0]["use"] == "k-core"
    manifests = [json.loads(file.read_text("utf-8")) for file in Path(".reaemb-bench").rglob("manifest.json")]
    assert [each["facts"]["sha256"] for each in manifests] == [written["sha256"]]
    assert written["size"]["interactions"] == manifests[0]["facts"]["interactions"]


def test_thresholds_move_what_counts_as_tail_and_short(command: Command, shop: Path) -> None:
    command("data", "describe", shop, "--tail", 1, "--short", 1, "--out", "none")
    command("data", "describe", shop, "--tail", 9999, "--short", 9999, "--out", "all")
    none, everything = (json.loads(Path(name, "card.json").read_text("utf-8")) for name in ("none", "all"))
    assert (none["items"]["tail_share"], none["users"]["short_history_share"]) == (0, 0)
    assert (everything["items"]["tail_share"], everything["users"]["short_history_share"]) == (1, 1)


def test_a_source_that_states_no_terms_is_no_licence(command: Command) -> None:
    said = command("data", "describe", "quickstart")
    assert "not stated; find out before you pass the data on" in said.out


@pytest.mark.parametrize("name", sorted(set(CATALOGUE["source"]) - {"table", "simulated"}))
def test_published_data_state_their_terms_before_anything_is_read(name: str) -> None:
    about = find("source", name).about
    assert about.home.startswith("https://")
    assert about.licence and about.citation


@pytest.mark.parametrize("name", ["../up", "a/b", "..", "ünï code", "shop"])
def test_whatever_its_name_a_card_is_one_folder_below_cards(command: Command, shop: Path, name: str) -> None:
    said = command("data", "describe", shop, "--set", f'prepare.source.name="{name}"')
    assert said.code == 0, said.err
    assert len(list(Path("cards").iterdir())) == 1
    assert len(list(Path("cards").glob("*/card.md"))) == 1
    assert not Path("up").exists()


def test_what_cannot_be_described_or_written_is_one_line(command: Command, shop: Path) -> None:
    Path("taken").write_text("a file", encoding="utf-8")
    taken = command("data", "describe", shop, "--out", "taken")
    shop.write_text(f'{shop.read_text("utf-8")}use = "shop.py:Untested"\n', encoding="utf-8")
    untested = command("data", "describe", shop)
    for said, words in ((taken, "choose another --out"), (untested, "no validation or no test targets")):
        assert said.code == 2
        assert words in said.err
        assert len(said.err.splitlines()) == 1
