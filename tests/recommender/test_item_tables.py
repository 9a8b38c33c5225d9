"""Where item vectors start, so that controls differ from treatments in one thing."""

from typing import Any

import numpy as np
import pytest
import torch

from reaemb_bench.core.artifacts import Float32
from reaemb_bench.core.errors import RecipeError
from reaemb_bench.core.registry import build

ITEMS, HIDDEN = 2000, 64


def start(use: str, vectors: Float32 | None = None, **settings: Any) -> Float32:
    table: Any = build("item-table", {"use": use, **settings})
    torch.manual_seed(0)
    values: Float32 = table.build(ITEMS, HIDDEN, vectors)().detach().numpy()
    return values


@pytest.mark.parametrize(("settings", "spread"), [({}, 0.125), ({"spread": 0.02}, 0.02)])
def test_ids_start_at_their_spread(settings: dict[str, Any], spread: float) -> None:
    values = start("ids", **settings)
    assert values.std() == pytest.approx(spread, rel=0.01)
    assert np.abs(values.mean(axis=0)).max() < 5 * spread / ITEMS**0.5


def test_ids_of_a_common_start_share_one_vector_and_differ_by_their_spread() -> None:
    values = start("ids", spread=0.02, common=True)
    assert values.mean(axis=0).std() == pytest.approx(0.125, rel=0.3)
    assert (values - values.mean(axis=0)).std() == pytest.approx(0.02, rel=0.01)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    assert (unit @ unit[0]).min() > 0.9


def test_random_vectors_as_a_start_have_the_spread_of_texts_as_a_start() -> None:
    generator = np.random.default_rng(0)
    texts = generator.normal(size=(ITEMS, HIDDEN)).astype(np.float32) * np.linspace(9, 1, HIDDEN, dtype=np.float32) + 40
    noise = generator.normal(size=(ITEMS, HIDDEN)).astype(np.float32)
    for vectors in (texts, noise):
        assert np.sqrt(np.square(start("initialised", vectors)).mean()) == pytest.approx(1 / HIDDEN**0.5, rel=1e-4)
    assert start("ids").std() == pytest.approx(1 / HIDDEN**0.5, rel=0.01)


@pytest.mark.parametrize("spread", [0.0, -1.0, "1/hidden"])
def test_a_spread_that_is_none_is_refused(spread: float | str) -> None:
    with pytest.raises(RecipeError, match="spread"):
        start("ids", spread=spread)
