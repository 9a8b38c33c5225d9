"""What makes each tuned baseline the method that it is named after, on a small language model."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from reaemb_bench.core.artifacts import Corpus, Encoder, Ranker, Ranks, Sequences, ValidationTargets, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import execute, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import plan
from reaemb_bench.core.registry import build, find
from reaemb_bench.core.store import Store
from reaemb_bench.encoder.finetune import Question
from reaemb_bench.encoder.folder import open_encoder, read_parts
from reaemb_bench.encoder.language_model import save_pretrained
from reaemb_bench.encoder.losses.info_nce import InfoNCE
from reaemb_bench.encoder.lrcl import ContrastiveLearner
from reaemb_bench.encoder.shared_prefix import Tokens
from reaemb_bench.encoder.thought_model import ThoughtModel
from tests.helpers.baselines import BASELINES, tiny
from tests.helpers.encoders import context, corpus, encoder

CPU = Machine(device="cpu")


def step(method: str, name: str, **settings: Any) -> Any:
    """A step of a baseline's own file."""
    return build("step", {"use": f"{BASELINES / method / 'component.py'}:{name}", **settings})


def module(method: str, name: str) -> ModuleType:
    """The module of a baseline's own file, which holds the component `name`."""
    return sys.modules[find("step", f"{BASELINES / method / 'component.py'}:{name}").__module__]


def shop(folder: Path, users: int = 60, items: int = 24) -> tuple[Corpus, ValidationTargets]:
    """Simulated customers and what they buy last but one."""
    source = {"use": "simulated", "users": users, "items": items, "clusters": 3}
    corpus, validation_targets, _ = build("step", {"use": "prepare", "source": source}).run(context(folder))  # type: ignore[attr-defined]
    return corpus, validation_targets


HEAD = {"use": "sasrec", "hidden": 16, "max_length": 10, "dropout": 0.0}


@pytest.fixture(scope="module")
def trained_ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, ValidationTargets, Ranker]:
    folder = tmp_path_factory.mktemp("ids")
    corpus, validation_targets = shop(folder)
    ids = build("step", {"use": "train-ids", "head": HEAD, "epochs": 5})
    return corpus, validation_targets, ids.run(corpus, validation_targets, context(folder))  # type: ignore[attr-defined]


def random_vectors(corpus: Corpus) -> Vectors:
    return Vectors(np.random.default_rng(0).normal(size=(corpus.items, 20)).astype(np.float32))


def aligned(trained_ids: tuple[Corpus, ValidationTargets, Ranker], folder: Path, **settings: Any) -> Ranker:
    corpus, validation_targets, ranker = trained_ids
    table = {"head": HEAD, "epochs": 5, "patience": 5, **settings}
    made: Ranker = step("llmemb", "TrainAligned", **table).run(
        corpus, validation_targets, random_vectors(corpus), ranker, context(folder)
    )
    return made


def test_llmemb_pulls_the_adapted_vectors_towards_the_trained_id_table(
    trained_ids: tuple[Corpus, ValidationTargets, Ranker], tmp_path: Path
) -> None:
    ids = torch.from_numpy(trained_ids[2].tensors["vectors"])

    def distance(ranker: Ranker) -> float:
        return InfoNCE().loss(torch.from_numpy(ranker.tensors["vectors"]), ids, torch.tensor(2.0)).item()

    free, held = (distance(aligned(trained_ids, tmp_path, weight=weight)) for weight in (0.0, 1.0))
    assert held < free - 0.02


def test_llmembs_own_loss_multiplies_its_targets_by_the_temperature_and_trains_them() -> None:
    authors = build("loss", {"use": f"{BASELINES / 'llmemb' / 'component.py'}:AuthorsLoss"})
    soft_target = build("loss", {"use": "soft-target"})
    first, second = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)).double()
    similarities = (first @ first.T + second @ second.T) / 2
    targets = (similarities * 3).softmax(dim=1)
    logits = first @ second.T / 3
    wanted = -(targets * logits.log_softmax(dim=1) + targets.T * logits.T.log_softmax(dim=1)).sum(dim=1).mean() / 2
    three, one = torch.tensor(3.0, dtype=torch.double, requires_grad=True), torch.tensor(1.0, dtype=torch.double)
    loss = authors.loss(first, second, three)  # type: ignore[attr-defined]
    torch.testing.assert_close(loss, wanted)
    losses = [kind.loss(first, second, one) for kind in (authors, soft_target)]  # type: ignore[attr-defined]
    torch.testing.assert_close(*losses)
    loss.backward()
    held = torch.tensor(3.0, dtype=torch.double, requires_grad=True)
    logits = first @ second.T / held
    fixed = -(targets * logits.log_softmax(dim=1) + targets.T * logits.T.log_softmax(dim=1)).sum(dim=1).mean() / 2
    fixed.backward()
    assert three.grad is not None and held.grad is not None and not torch.isclose(three.grad, held.grad)


def test_llmembs_alignment_is_the_loss_that_it_is_given(
    trained_ids: tuple[Corpus, ValidationTargets, Ranker], tmp_path: Path
) -> None:
    authors = {"use": f"{BASELINES / 'llmemb' / 'component.py'}:AuthorsLoss"}
    rankers = [aligned(trained_ids, tmp_path, weight=0.1, loss=loss) for loss in (authors, "info-nce")]
    assert np.abs(rankers[0].tensors["vectors"] - rankers[1].tensors["vectors"]).max() > 1e-3


def test_llmemb_without_weight_is_plain_training(
    trained_ids: tuple[Corpus, ValidationTargets, Ranker], tmp_path: Path
) -> None:
    corpus, validation_targets, _ = trained_ids
    plain = build("step", {"use": "train", "head": HEAD, "epochs": 5, "patience": 5})
    made = plain.run(corpus, validation_targets, random_vectors(corpus), context(tmp_path))  # type: ignore[attr-defined]
    without = aligned(trained_ids, tmp_path, weight=0.0)
    assert all(np.array_equal(made.tensors[name], without.tensors[name]) for name in made.tensors)


def test_llmemb_refuses_an_id_table_of_another_width(
    trained_ids: tuple[Corpus, ValidationTargets, Ranker], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="same `hidden`"):
        aligned(trained_ids, tmp_path, head={**HEAD, "hidden": 8})


BOTH_WAYS = {"backbone": {"use": "bidirectional", "of": {"use": "tiny", "vocabulary": 400}}, "reasoner": "none"}


def opened(folder: Path, **settings: Any) -> ThoughtModel:
    return open_encoder(encoder(folder, **settings), CPU)


def other_end(tokens: Tokens) -> Tokens:
    """The same sequences with another last token."""
    ids = tokens.ids.clone()
    ids[:, -1] = (ids[:, -1] + 1) % 100
    return Tokens(ids, tokens.mask)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_later_token_changes_an_earlier_state_only_where_attention_goes_both_ways(
    tmp_path: Path, bidirectional: bool
) -> None:
    model = opened(tmp_path, **BOTH_WAYS)
    tokens = model.tokens(model.tokenize(corpus().texts[:3]))
    before = model.states(tokens, bidirectional=bidirectional)[:, -5]
    after = model.states(other_end(tokens), bidirectional=bidirectional)[:, -5]
    assert torch.allclose(before, after, atol=1e-6) != bidirectional


def test_a_bidirectional_vector_depends_on_no_padding_and_on_every_token(tmp_path: Path) -> None:
    model = opened(tmp_path, **BOTH_WAYS, pooling="mean")
    rows = model.tokenize(corpus().texts[:6])
    together = model.embed(model.tokens(rows))
    alone = torch.cat([model.embed(model.tokens([row])) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together, model.embed(other_end(model.tokens(rows))), atol=1e-3)


def test_a_bidirectional_backbone_has_no_thoughts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no place for thoughts"):
        encoder(tmp_path, backbone=BOTH_WAYS["backbone"])


def masked_questions(model: ThoughtModel) -> list[Question]:
    made = step("llm2vec", "MaskedNextToken", batch_size=20)
    questions: list[Question] = next(made._task(model, corpus(), 1).batches)
    return questions


def test_llm2vec_asks_for_tokens_of_the_item_that_the_model_cannot_see(tmp_path: Path) -> None:
    model = opened(tmp_path, **BOTH_WAYS)
    mask = model.tokenizer("_", add_special_tokens=False)["input_ids"][0]
    rows = {tuple(row) for row in model.tokenize(corpus().texts)}
    template = model.tokenize([""])[0]
    for question in masked_questions(model):
        restored = list(question.ids)
        for place, target in zip(question.places, question.targets, strict=True):
            assert question.ids[place + 1] == mask
            restored[place + 1] = target
        assert tuple(restored[:-1]) in rows and restored[-1] == model.eos_id
        fixed = [one == other for one, other in zip(restored, template, strict=False)].index(False)
        assert min(question.places) + 1 >= fixed > 5, "a token of the template was hidden"


def test_llm2vec_predicts_without_seeing_the_hidden_token_and_from_what_follows_it(tmp_path: Path) -> None:
    model = opened(tmp_path, **BOTH_WAYS)
    question = masked_questions(model)[0]
    other = replace(question, targets=tuple((target + 1) % 100 for target in question.targets))
    states = [model.states(model.tokens([each.ids]), bidirectional=True) for each in (question, other)]
    assert torch.equal(states[0], states[1])
    tokens = model.tokens([question.ids])
    place = question.places[0]
    later, earlier = (
        model.states(other_end(tokens), bidirectional=True),
        model.states(tokens, bidirectional=True),
    )
    assert not torch.allclose(later[:, place], earlier[:, place], atol=1e-6)


def tuned(
    method: str, name: str, made: Encoder, folder: Path, *inputs: Any, **settings: Any
) -> tuple[Any, list[float]]:
    """What a baseline's step makes of an encoder, and its losses."""
    ticks: list[Any] = []
    facts: dict[str, Any] = {}
    result = step(method, name, **settings).run(corpus(), made, *inputs, context(folder, ticks, facts))
    assert facts["trained_parameters"] > 100 and facts["tokens"] > 100
    return result, [tick.values["loss"] for tick in ticks]


@pytest.mark.slow
def test_llm2vec_learns_to_restore_tokens_and_leaves_an_adapter(tmp_path: Path) -> None:
    made = encoder(tmp_path / "llm", **BOTH_WAYS)
    settings = {"steps": 25, "batch_size": 10, "learning_rate": 1e-2}
    after, losses = tuned("llm2vec", "MaskedNextToken", made, tmp_path / "tuned", **settings)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    assert read_parts(after).adapters == ("adapter",)
    again, _ = tuned("llm2vec", "MaskedNextToken", made, tmp_path / "again", **settings)
    adapter = "adapter/adapter_model.safetensors"
    assert (after.folder / adapter).read_bytes() == (again.folder / adapter).read_bytes()


def test_llm2vec_needs_a_bidirectional_backbone(tmp_path: Path) -> None:
    made = encoder(tmp_path / "llm", reasoner="none")
    with pytest.raises(UserError, match="bidirectional"):
        tuned("llm2vec", "MaskedNextToken", made, tmp_path / "tuned", steps=1)


@pytest.mark.slow
def test_equal_views_differ_by_dropout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    plain = ContrastiveLearner.step
    monkeypatch.setattr(
        ContrastiveLearner,
        "step",
        lambda self, step, pairs, items: seen.extend(pairs) or plain(self, step, pairs, items),
    )
    made = encoder(tmp_path / "llm", **BOTH_WAYS)
    table = {"use": "contrast", "views": "same", "loss": "info-nce", "batch_size": 10, "learning_rate": 5e-3}
    ticks: list[Any] = []
    build("step", {**table, "steps": 15, "lora_dropout": 0.3}).run(corpus(), made, context(tmp_path / "a", ticks))  # type: ignore[attr-defined]
    losses = [tick.values["loss"] for tick in ticks]
    assert losses[-1] < losses[0]
    assert len(seen) == 150 and all(first == second for first, second in seen)


def test_an_interrupted_tuning_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(list[Any]):
        def append(self, tick: Any) -> None:
            if tick.done == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("reaemb_bench.core.training.SECONDS", 0.0)
    made, ticks = encoder(tmp_path / "llm", **BOTH_WAYS), Stop()
    tune = step("llm2vec", "MaskedNextToken", steps=4, batch_size=10, learning_rate=5e-3)
    whole = tune.run(corpus(), made, context(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        tune.run(corpus(), made, context(tmp_path / "broken", ticks))
    facts: dict[str, Any] = {}
    resumed = tune.run(corpus(), made, context(tmp_path / "broken", facts=facts))
    weights = "adapter/adapter_model.safetensors"
    assert (resumed.folder / weights).read_bytes() == (whole.folder / weights).read_bytes()
    assert facts["tokens"] > 0


@pytest.mark.slow
def test_the_micro_batch_does_not_change_what_is_learned(tmp_path: Path) -> None:
    made = encoder(tmp_path / "llm", **BOTH_WAYS)
    curves = []
    for size in (1, 7, 64):
        ticks: list[Any] = []
        made_by = step("llm2vec", "MaskedNextToken", steps=4, batch_size=10, learning_rate=1e-3, lora_dropout=0.3)
        made_by.run(corpus(), made, context(tmp_path / str(size), ticks, micro_batch=size))
        curves.append([tick.values["loss"] for tick in ticks])
    np.testing.assert_allclose(curves[:2], [curves[2]] * 2, rtol=1e-5)
    assert curves[0][0] != curves[0][-1]


def test_llm2rec_asks_for_the_next_title_behind_the_titles_before_it(tmp_path: Path) -> None:
    model = opened(tmp_path, **BOTH_WAYS)
    made = step("llm2rec", "NextTitle", batch_size=50, history=3)
    for question in next(made._task(model, corpus(), 1).batches):
        text = model.tokenizer.decode(question.ids)
        shown, wanted = text.split("\nNext: ")
        last = int(shown.rsplit(" ", 1)[1])
        assert wanted == f"Game number {last + 1}"
        assert model.tokenizer.decode(question.targets) == f"{wanted}{model.tokenizer.eos_token}"
        assert shown.count("Game number") == min(3, last + 1)


@pytest.mark.slow
def test_llm2rec_learns_titles_causally(tmp_path: Path) -> None:
    made = encoder(tmp_path / "llm", **BOTH_WAYS)
    settings = {"steps": 25, "batch_size": 10, "learning_rate": 1e-2}
    _, losses = tuned("llm2rec", "NextTitle", made, tmp_path / "tuned", **settings)
    assert losses[-1] < losses[0] - 0.5


def test_what_is_too_long_for_the_model_is_the_oldest_title(tmp_path: Path) -> None:
    model = opened(tmp_path, **BOTH_WAYS, max_length=80)
    question = module("llm2rec", "NextTitle").continued(model, "word " * 200 + "end: ", "a title")
    assert len(question.ids) == 80 - 1
    assert model.tokenizer.decode(question.ids).endswith("word end: a title")


def speaking(folder: Path) -> Encoder:
    """A tiny encoder whose language model has learned to write the corpus' texts, as real ones have learned theirs."""
    made = encoder(folder / "random", reasoner="none")
    model = open_encoder(made, CPU).requires_grad_(True)
    ids = model.tokens([[*row, model.eos_id] for row in model.tokenizer(list(corpus().texts))["input_ids"]])
    labels = ids.ids.masked_fill(ids.mask == 0, -100)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        model.causal_lm(input_ids=ids.ids, attention_mask=ids.mask, labels=labels).loss.backward()
        optimiser.step()
    save_pretrained(model.causal_lm, model.tokenizer, folder / "model")
    return encoder(folder / "llm", backbone={"use": "causal-lm", "model": str(folder / "model")}, reasoner="none")


@pytest.mark.slow
def test_said_writes_an_items_text_from_its_own_vector(tmp_path: Path) -> None:
    made = speaking(tmp_path)
    settings = {"steps": 60, "batch_size": 20, "width": 16}
    vectors, losses = tuned("said", "Regenerate", made, tmp_path / "said", **settings)
    assert losses[-1] < losses[0] - 0.15
    said = module("said", "Regenerate")
    model = open_encoder(made, CPU)
    texts = said.item_texts(model, corpus())
    rows = torch.from_numpy(vectors.values)
    losses_of = torch.zeros(20, 20)
    with torch.no_grad():
        for item, text in enumerate(texts):
            for other in range(20):
                losses_of[item, other] = said.text_loss(model, rows[other : other + 1], [text])
    own, others = losses_of.diagonal(), (losses_of.sum(dim=1) - losses_of.diagonal()) / 19
    assert (own < others).float().mean() > 0.9
    assert (vectors.items, vectors.width) == (20, model.width)


@pytest.mark.parametrize("lora", [False, True])
def test_said_trains_vectors_projector_and_adapters_on_all_projections(tmp_path: Path, lora: bool) -> None:
    made = encoder(tmp_path / "llm", reasoner="none")
    model = open_encoder(made, CPU)
    linear = [module for name, module in model.causal_lm.named_modules() if name.endswith("_proj")]
    assert len(linear) % 7 == 0
    adapters = 8 * sum(module.in_features + module.out_features for module in linear)
    facts: dict[str, Any] = {}
    settings = {"steps": 3, "width": 16, "lora": lora}
    step("said", "Regenerate", **settings).run(corpus(), made, context(tmp_path / "said", facts=facts))
    assert facts["trained_parameters"] == 20 * 16 + 16 * 64 + 64 + (adapters if lora else 0)


def test_saids_adapters_learn_at_a_rate_of_their_own(tmp_path: Path) -> None:
    made = encoder(tmp_path / "llm", reasoner="none")
    vectors = [
        tuned("said", "Regenerate", made, tmp_path / str(number), steps=4, width=16, clip_norm=None, **rates)[0].values
        for number, rates in enumerate(
            ({"learning_rate": 1e-9}, {"lora": False}, {"learning_rate": 1e-2}, {"vector_learning_rate": 1e-9})
        )
    ]
    # Adapters that hardly learn are as good as none; others change what the vectors learn, at any rate of their own.
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-4)
    assert np.abs(vectors[2] - vectors[1]).max() > 1e-3
    assert np.ptp(vectors[3], axis=0).max() < 1e-6 < np.ptp(vectors[1], axis=0).max()


def planted(users: int = 60) -> tuple[Corpus, Ranker]:
    """Two kinds of items that a title names, users who like the one or the other, and vectors that know the kind."""
    items = 20
    kinds = np.arange(items) % 2
    generator = np.random.default_rng(0)
    liking = generator.random(users)
    chosen = np.array(
        [
            generator.choice(np.flatnonzero(kinds == (generator.random() < like)), size=1)[0]
            for like in liking
            for _ in range(8)
        ],
        dtype=np.int32,
    )
    titles = tuple(f"{('racing', 'puzzle')[kind]} {item}" for item, kind in enumerate(kinds))
    training = Sequences(chosen, np.arange(0, 8 * users + 1, 8, dtype=np.int64))
    made = Corpus("planted", training, titles, tuple(map(str, range(users))), "", titles, titles)
    vectors = np.where(kinds[:, None] == 0, [[1.0, 0.0]], [[0.0, 1.0]]) + generator.normal(size=(items, 2)) * 0.05
    return made, Ranker({}, {"vectors": vectors.astype(np.float32)})


@pytest.mark.slow
def test_tslrec_reads_the_planted_shares_out_of_titles(tmp_path: Path) -> None:
    planted_corpus, ranker = planted()
    tslrec = module("tslrec", "LatentCategories")
    found = tslrec.latent_categories(ranker.tensors["vectors"], 2, 0)
    # What all vectors share does not hide their differences.
    assert np.array_equal(tslrec.latent_categories(ranker.tensors["vectors"] + 50, 2, 0), found)
    assert len(set(zip(found.tolist(), (np.arange(20) % 2).tolist(), strict=True))) == 2
    table = {"use": "llm", "backbone": {"use": "tiny", "vocabulary": 400}, "reasoner": "none"}
    made = build("step", table).run(planted_corpus, context(tmp_path / "llm"))  # type: ignore[attr-defined]
    ticks: list[Any] = []
    settings = {"steps": 60, "batch_size": 30, "categories": 2, "history": 8, "learning_rate": 1e-2}
    made_by = step("tslrec", "LatentCategories", **settings)
    after = made_by.run(planted_corpus, made, ranker, context(tmp_path / "tuned", ticks))
    losses = [tick.values["loss"] for tick in ticks]
    shares = np.stack(
        [np.bincount(found[planted_corpus.training.of(user)], minlength=2) / 8 for user in range(planted_corpus.users)]
    )
    same_for_all = np.mean([_divergence(row, shares.mean(axis=0)) for row in shares])
    # A prediction that read nothing could only give everybody the same shares.
    assert np.mean(losses[-5:]) < same_for_all / 2 < losses[0]
    assert read_parts(after).adapters == ("adapter",)


def _divergence(true: np.ndarray, told: np.ndarray) -> float:
    seen = true > 0
    return float((true[seen] * np.log(true[seen] / told[seen])).sum())


def test_tslrec_needs_more_items_than_categories(tmp_path: Path) -> None:
    made = encoder(tmp_path / "llm", reasoner="none")
    ranker = Ranker({}, {"vectors": np.eye(20, dtype=np.float32)})
    with pytest.raises(UserError, match="categories = 20"):
        tuned("tslrec", "LatentCategories", made, tmp_path / "tuned", ranker, categories=20)


@pytest.mark.parametrize(
    ("method", "name"),
    [("llm2vec", "MaskedNextToken"), ("llm2rec", "NextTitle"), ("said", "Regenerate")],
)
def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path, method: str, name: str) -> None:
    made = encoder(tmp_path / "llm", **BOTH_WAYS)
    with pytest.raises(UserError, match="in step 2"):
        tuned(method, name, made, tmp_path / "tuned", steps=3, learning_rate=1e37, clip_norm=None)


TWO_WAYS = 'llm.backbone={use="bidirectional", of="tiny"}'
IDS = ("ids.head.hidden=16", "ids.epochs=1")
SHORT = {
    "llmemb": ("contrast.steps=1", "contrast.batch_size=8", *IDS),
    "llm2vec": (TWO_WAYS, "mntp.steps=1", "simcse.steps=1", "simcse.batch_size=8"),
    "llm2rec": (TWO_WAYS, "titles.steps=1", "mntp.steps=1", "simcse.steps=1", "simcse.batch_size=8"),
    "said": ("encode.steps=1",),
    "tslrec": ("preferences.steps=1", *IDS),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", SHORT)
def test_it_runs_from_data_to_ranks(method: str, tmp_path: Path) -> None:
    recipe = tiny(BASELINES / method / "recipe.toml", tmp_path, *SHORT[method], "floors.floors=['random']")
    planned, store = plan(recipe, 42), Store(tmp_path / "store")
    execute(planned, store, Machine(device="cpu", mlflow=""), lambda event: None)
    ranks = fetch(planned, store, Ranks)
    assert ranks is not None and not ranks.tied.any() and len(np.unique(ranks.better)) > 10
    assert planned.leaks == ()
