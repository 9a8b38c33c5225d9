"""The simulated shop holds what is planted, as strongly as it is asked for, and nothing else."""

import itertools

import numpy as np
import pytest

from reaemb_bench.core.machine import Machine
from reaemb_bench.data.sources.simulated import Simulated

FACTS = ("category", "style")


def shop(**settings: float) -> tuple[list[tuple[str, str]], dict[str, dict[str, str]]]:
    read = Simulated(users=600, items=160, clusters=8, mean_length=8, loyalty=0.3, habit=0, **settings).read(Machine())
    texts = {key: {name: str(value) for name, value in item.items()} for key, item in read.items.items()}
    rows = read.frame.sort("user", "timestamp").select("user", "item").rows()
    return rows, texts


def share_of(rows: list[tuple[str, str]], texts: dict[str, dict[str, str]], fact: str) -> float:
    """How often two purchases in a row have the same fact."""
    pairs = [(a, b) for (first, a), (second, b) in itertools.pairwise(rows) if first == second]
    return float(np.mean([texts[a][fact] == texts[b][fact] for a, b in pairs]))


def test_tastes_are_explained_by_a_word_of_the_text_and_grow_with_their_strength() -> None:
    shares = [share_of(*shop(tastes=strength), "style") for strength in (0.01, 2.0, 4.0)]
    assert shares[0] == pytest.approx(1 / 6, abs=0.05)
    assert shares[0] < shares[1] - 0.05 < shares[2] - 0.2


def test_without_tastes_no_text_names_a_style() -> None:
    _, texts = shop()
    assert not any("style" in item for item in texts.values())


def test_complements_follow_each_other_and_share_no_text() -> None:
    def crossings(strength: float) -> float:
        rows, texts = shop(complements=strength)
        names = sorted({item["category"] for item in texts.values()})
        pairs = [(a, b) for (first, a), (second, b) in itertools.pairwise(rows) if first == second]
        moved = [(texts[a]["category"], texts[b]["category"]) for a, b in pairs]
        moved = [(a, b) for a, b in moved if a != b]
        counts = np.zeros((8, 8))
        for a, b in moved:
            counts[names.index(a), names.index(b)] += 1
        # The share of moves that go to the most usual next category.
        return float(counts.max(1).sum() / counts.sum())

    assert crossings(0.0) < 0.3 < 0.85 < crossings(0.9)


def test_what_is_not_asked_for_changes_no_purchase() -> None:
    assert shop() == shop(tastes=0.0, complements=0.0)
    assert shop()[0] != shop(complements=0.5)[0]
