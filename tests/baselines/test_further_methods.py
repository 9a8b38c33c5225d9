"""What makes AlphaFuse, RecXplore's adaptation, AlphaRec and semantic ids what they are."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reaemb_bench.core.artifacts import Corpus, Float32, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.recipe import load
from reaemb_bench.encoder.reducers import PCA
from tests.helpers.baselines import BASELINES, mixed, part
from tests.helpers.encoders import context, corpus
from tests.helpers.heads import sequences


def null_space(**settings: Any) -> Any:
    torch.manual_seed(0)
    return part("item-table", "alphafuse", "NullSpaceIds", **settings).build(200, 8, mixed().values)


def test_alphafuse_is_one_table_whose_first_directions_are_standardised_text_and_stay() -> None:
    table = null_space(null=0.25)
    before = table().detach().numpy()
    np.testing.assert_allclose(np.cov(before[:, :6].T), np.eye(6) / 8, atol=2e-3)
    text = PCA(dimensions=6).reduce(mixed()).values
    for column in range(6):
        assert abs(np.corrcoef(before[:, column], text[:, column])[0, 1]) > 0.9999
    assert [name for name, _ in table.named_parameters()] == ["ids"]
    assert sum(parameter.numel() for parameter in table.parameters()) == 200 * 2
    table().square().sum().backward()
    with torch.no_grad():
        table.ids -= table.ids.grad
    after = table().detach().numpy()
    assert np.array_equal(after[:, :6], before[:, :6]) and np.abs(after[:, 6:] - before[:, 6:]).max() > 0.1


def test_alphafuses_ids_move_no_item_along_the_directions_of_the_text() -> None:
    """With any ids, the text's directions hold the same numbers as without them."""
    table = null_space(null=0.5)
    with torch.no_grad():
        table.ids.normal_(std=100)
    moved = (table() - table.text).detach().numpy()
    assert not moved[:, :4].any() and moved[:, 4:].all()


def test_alphafuses_null_space_holds_text_and_ids_or_ids_alone() -> None:
    both, ids = null_space(null=0.5), null_space(null=0.5, keep_text=False)
    for table in (both, ids):
        with torch.no_grad():
            table.ids.zero_()
    assert both()[:, 4:].abs().min() > 0 and not ids()[:, 4:].any()
    torch.testing.assert_close(both()[:, :4] / both()[:, :4].std(), ids()[:, :4] / ids()[:, :4].std())


def test_alphafuse_without_standardisation_keeps_the_spectrum_of_the_text() -> None:
    plain = null_space(null=0.25, standardised=False)().detach().numpy()[:, :6]
    text = PCA(dimensions=6).reduce(mixed()).values
    np.testing.assert_allclose(plain.std(axis=0) / plain.std(), text.std(axis=0) / text.std(), rtol=1e-3)


def test_recxplores_experts_read_principal_components() -> None:
    recipe = load(BASELINES / "recxplore" / "recipe.toml")
    assert recipe.raw["reduce"]["reducer"] == {"use": "pca", "dimensions": 256}
    assert recipe.raw["train"]["items"]["use"].endswith("unisrec/component.py:Experts")
    unisrec = load(BASELINES / "unisrec" / "recipe.toml")
    assert unisrec.raw["reduce"]["reducer"] == "none"


def alpharec(rows: list[list[int]], texts: Float32, folder: Path, **settings: Any) -> Float32:
    held: Corpus = replace(
        corpus(len(texts)), training=sequences(rows), user_keys=tuple(f"u{number}" for number in range(len(rows)))
    )
    small = {"dimensions": 8, "inner": 16, "negatives": 4, "batch_size": 16, "epochs": 2, **settings}
    values: Float32 = part("step", "alpharec", "AlphaRec", **small).run(held, Vectors(texts), context(folder)).values
    return values


TWINS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
TWINS[1] = TWINS[0]
ROWS = [[0, 2, 3], [0, 2], [1, 4, 5], [1, 4], [6, 7, 8], [9, 10]]


def test_alpharec_tells_equal_texts_apart_by_who_has_them_and_by_nothing_else(tmp_path: Path) -> None:
    """There are no ids: without the graph items of equal texts are equal."""
    without, by_graph = (alpharec(ROWS, TWINS, tmp_path, layers=layers) for layers in (0, 2))
    np.testing.assert_allclose(without[0], without[1], atol=1e-6)
    assert np.abs(by_graph[0] - by_graph[1]).max() > 1e-2
    np.testing.assert_allclose(np.linalg.norm(by_graph, axis=1), 1, atol=1e-5)
    # Item 11 has no user and still a vector, that of its text.
    assert by_graph[11].any()


def test_alpharec_brings_items_of_the_same_users_together(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    rows = [generator.permutation(np.arange(6 * kind, 6 * kind + 6))[:4].tolist() for kind in (0, 1) for _ in range(20)]
    texts = generator.normal(size=(12, 5)).astype(np.float32)

    def gap(values: Float32) -> float:
        cosines = values @ values.T
        return float(cosines[:6, :6].mean() + cosines[6:, 6:].mean() - 2 * cosines[:6, 6:].mean())

    settings = {"layers": 0, "learning_rate": 1e-2}
    first, last = (alpharec(rows, texts, tmp_path, epochs=epochs, **settings) for epochs in (1, 40))
    assert gap(last) > gap(first) + 0.3


def test_alpharecs_graph_is_the_symmetrically_normalised_one() -> None:
    step = part("step", "alpharec", "AlphaRec")
    users, items = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 0])
    graph = sys.modules[type(step).__module__].Graph(users, items, 4, 3, torch.device("cpu"))
    edges = torch.zeros(4, 3)
    edges[users, items] = 1
    whole = torch.zeros(7, 7)
    whole[:4, 4:], whole[4:, :4] = edges, edges.T
    degrees = whole.sum(dim=1).clamp(min=1)
    whole = whole / (degrees[:, None] * degrees).sqrt()
    vectors = torch.randn(7, 5)
    wanted = (vectors + whole @ vectors + whole @ whole @ vectors) / 3
    torch.testing.assert_close(torch.cat(graph.mixed(vectors[:4], vectors[4:], 2)), wanted)
    torch.testing.assert_close(graph.mean_over_items(vectors[4:])[0], (vectors[4] + vectors[5]) / 2)
    assert not graph.mean_over_items(vectors[4:])[3].any()


def test_alpharec_needs_an_interaction(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training interaction"):
        alpharec([[], []], TWINS, tmp_path)


def codes_of(values: Float32, **settings: Any) -> Any:
    torch.manual_seed(0)
    return part("item-table", "semantic_ids", "SemanticIds", **settings).build(len(values), 8, values)


def test_semantic_ids_share_the_first_code_among_similar_texts() -> None:
    generator = np.random.default_rng(0)
    kinds = np.repeat(np.eye(4, 6, dtype=np.float32) * 9, 10, axis=0)
    table = codes_of(kinds + generator.normal(size=(40, 6)).astype(np.float32) * 0.1 + 50, codes=4, levels=2)
    first = table.codes[:, 0].reshape(4, 10)
    assert (first == first[:, :1]).all() and len(first[:, 0].unique()) == 4
    # A step that moves one item moves those that share its codes, and no other.
    before = table().detach().clone()
    table()[0].sum().backward()
    with torch.no_grad():
        table.weight -= table.weight.grad
    moved = (table() - before).abs().amax(dim=1) > 0
    assert moved[:10].all()
    shares = (table.codes == table.codes[0]).any(dim=1)
    assert torch.equal(moved, shares) and not moved.all()


def test_semantic_ids_tell_items_of_equal_codes_apart_by_one_more_code() -> None:
    values = np.repeat(mixed(5, 6).values, 3, axis=0)
    alike, apart = codes_of(values, codes=4, unique=False), codes_of(values, codes=4)
    assert len(alike().detach().unique(dim=0)) <= 5
    assert len(apart().detach().unique(dim=0)) == len(apart.codes.unique(dim=0)) == 15


def test_each_level_of_codes_describes_what_the_one_before_left_over() -> None:
    component = part("item-table", "semantic_ids", "SemanticIds")
    plugin = sys.modules[type(component).__module__]
    values = mixed(200, 6).values
    codes = plugin.residual_codes(values, 3, 8, 0)
    left, errors = values.astype(np.float64), [values.var()]
    for level in range(3):
        centres = np.stack([left[codes[:, level] == code].mean(axis=0) for code in range(8)])
        left = left - centres[codes[:, level]]
        errors.append(left.var())
    assert errors[1] < 0.8 * errors[0] and errors[2] < 0.8 * errors[1] and errors[3] < 0.8 * errors[2]
    assert np.array_equal(plugin.residual_codes(values, 3, 8, 0), codes)


PROMPTS = {"recipe": "", "recipe_embeddinggemma": "title: none | text: ", "recipe_e5": "query: "}


@pytest.mark.parametrize("name", ["recipe", "recipe_embeddinggemma", "recipe_blair", "recipe_e5", "recipe_bge"])
def test_sentence_encoders_read_texts_behind_the_prompts_of_their_cards(name: str) -> None:
    embed = load(BASELINES / "sentence_encoders" / f"{name}.toml").raw["embed"]
    assert embed.get("prompt", "") == PROMPTS.get(name, "")
    # BLaIR's folder has no modules that say so.
    assert (embed.get("pooling"), embed.get("normalize")) == (("cls", True) if name == "recipe_blair" else (None, None))
