"""What makes each way of turning texts into vectors, without training, what it is."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Corpus, Float32
from reaemb_bench.core.errors import UserError
from tests.helpers.baselines import part, write_models
from tests.helpers.encoders import context, corpus


def texts(*written: str) -> Corpus:
    keys = tuple(map(str, range(len(written))))
    return replace(corpus(len(written)), texts=written, item_keys=keys)


def vectors(step: Any, given: Corpus, folder: Path) -> Float32:
    made: Float32 = step.run(given, context(folder)).values
    return made


def similarities(rows: Float32, to: int) -> Float32:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    made: Float32 = unit @ unit[to]
    return made


SHELF = (
    "title is Green Tea Tin; category is Kitchen; brand is Leafwell",
    "title is Steel Guitar Strings; category is Music; brand is Strumm",
    "brand is LEAFWELL; category is kitchen; title is tin tea green",
    "title is Green Tea Pot; category is Kitchen; brand is Leafwell",
    "title is Road Bike Saddle; category is Sport; brand is Velocio",
    "title is Trail Boots; category is Outdoor; brand is Norwand",
)


def tfidf(written: Sequence[str], **settings: Any) -> Float32:
    given: Float32 = part("step", "tfidf_svd", "TfidfSvd", **settings).run(texts(*written)).values
    return given


def test_tfidf_ignores_the_order_of_words_and_upper_case() -> None:
    made = tfidf(SHELF, dimensions=4)
    np.testing.assert_allclose(made[2], made[0], atol=1e-6)


def test_tfidf_finds_the_planted_duplicate_nearest_and_shared_words_next() -> None:
    near = similarities(tfidf(SHELF, dimensions=4), 0)
    assert near[2] == pytest.approx(1, abs=1e-5)
    assert near[3] > max(near[1], near[4], near[5])


def test_tfidf_keeps_the_inner_products_of_the_weights_but_for_the_directions_left_out() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    weights = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(SHELF).toarray()
    made = tfidf(SHELF, dimensions=5).astype(np.float64)
    # Two texts of six are the same, so five directions hold everything.
    np.testing.assert_allclose(made @ made.T, weights @ weights.T, atol=1e-5)


def test_a_rare_word_brings_texts_closer_than_a_common_one() -> None:
    made = tfidf(["tea rare", "rare other", "tea common", "tea usual", "tea plain", "tea daily"], dimensions=5)
    near = similarities(made, 0)
    assert near[1] > near[2]


@pytest.mark.parametrize(("settings", "message"), [({"dimensions": 6}, "below the 6 items"), ({}, "lower it")])
def test_tfidf_refuses_more_dimensions_than_items(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tfidf(SHELF, **settings)


def test_tfidf_refuses_items_without_words() -> None:
    with pytest.raises(UserError, match="finds no words"):
        tfidf(["", "; ;", "."], dimensions=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def test_wordllama_is_the_mean_of_the_tokens_vectors(models: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    table = load_file(models / "wordllama" / "l2_supercat_256.safetensors")["embedding.weight"].astype(np.float32)
    reader = Tokenizer.from_file(str(models / "wordllama" / "l2_supercat_tokenizer_config.json"))
    made = vectors(part("step", "wordllama", "WordLlama", folder=str(models / "wordllama")), texts("tea", ""), tmp_path)
    letters = [reader.token_to_id(letter) for letter in "tea"]
    np.testing.assert_allclose(made[0], (table[letters[0]] + table[letters[1]] + table[letters[2]]) / 3, atol=1e-6)
    assert not made[1].any()


def test_wordllama_does_not_read_the_order(models: Path, tmp_path: Path) -> None:
    step = part("step", "wordllama", "WordLlama", folder=str(models / "wordllama"))
    made = vectors(step, texts("tea; pot", "pot; tea", "cup; tea"), tmp_path)
    np.testing.assert_allclose(made[1], made[0], atol=1e-6)
    assert np.abs(made[2] - made[0]).max() > 1e-3


def minilm(models: Path, monkeypatch: pytest.MonkeyPatch, **settings: int) -> Any:
    """The baseline with the small model in place of the one that it downloads."""
    step = part("step", "minilm", "MiniLM", **settings)
    monkeypatch.setattr(sys.modules[type(step).__module__], "wheel_members", lambda *_: models / "minilm")
    return step


def test_minilm_is_the_mean_of_its_last_states_at_length_one(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    given = texts(*SHELF, "x")
    made = vectors(minilm(models, monkeypatch), given, tmp_path)
    tokenizer, model = (each.from_pretrained(models / "minilm") for each in (AutoTokenizer, AutoModel))
    for text, vector in zip(given.texts, made, strict=True):
        with torch.no_grad():
            mean = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_minilms_limit_cuts_the_end(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = vectors(minilm(models, monkeypatch, max_length=9), texts(*SHELF), tmp_path)
    # Only "title is " is left of four of them.
    np.testing.assert_allclose(cut[[1, 3, 4]], cut[[0, 0, 0]], atol=1e-5)
    assert np.abs(cut[2] - cut[0]).max() > 1e-3


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        part("step", "wordllama", "WordLlama", folder=str(tmp_path / "nothing")).run(texts(*SHELF), context(tmp_path))
    assert "nothing" in str(caught.value) and "\n" not in str(caught.value)


def test_another_file_in_the_folder_is_another_key(models: Path, tmp_path: Path) -> None:
    there, elsewhere = (
        part("step", "wordllama", "WordLlama", folder=str(folder)).fingerprint()
        for folder in (models / "wordllama", tmp_path)
    )
    assert there != elsewhere
    assert part("step", "wordllama", "WordLlama").fingerprint() == {}


def test_random_vectors_read_no_text_and_follow_the_seed(tmp_path: Path) -> None:
    step = part("step", "random_table", "RandomVectors", dimensions=32)
    first, again = (vectors(step, texts(*shelf), tmp_path) for shelf in (SHELF, SHELF[::-1]))
    assert np.array_equal(first, again)
    other = step.run(texts(*SHELF), replace(context(tmp_path), seed=8)).values
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.3
    assert first.mean() == pytest.approx(0, abs=0.3) and first.std() == pytest.approx(1, abs=0.2)


def test_the_last_token_and_the_mean_differ_only_in_pooling() -> None:
    from reaemb_bench.core.recipe import load
    from tests.helpers.baselines import BASELINES

    mean, last = (load(BASELINES / f"frozen_llm_{pooling}" / "recipe.toml").steps for pooling in ("mean", "last"))
    assert [name for name in mean if mean[name] != last[name]] == ["llm"]
    specs = [steps["llm"].spec() for steps in (mean, last)]
    assert [name for name in specs[0] if specs[0][name] != specs[1][name]] == ["pooling"]
