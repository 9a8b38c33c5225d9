"""A pooling in which the thought weighs, similarities, and what a stage of training says about itself."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.encoder.poolings import TextAndThought
from reaemb_bench.encoder.shared_prefix import Tokens
from reaemb_bench.encoder.similarity import comparable
from reaemb_bench.encoder.thought_model import ThoughtModel
from tests.helpers.encoders import context, corpus, encoder

CPU = Machine(device="cpu")
SHARED = {"use": "text-and-thought", "share": 0.3}


def test_the_vector_is_the_weighed_mean_of_the_texts_and_the_thoughts_states() -> None:
    states, mask = torch.randn(3, 7, 5), torch.ones(3, 7)
    mask[1, :2] = 0
    pooled = TextAndThought(share=0.25).pool(states, mask, 2)
    # Four tokens of text, two thoughts, EOS.
    torch.testing.assert_close(pooled[0], states[0, :4].mean(0) * 0.75 + states[0, 4:6].mean(0) * 0.25)
    torch.testing.assert_close(pooled[1], states[1, 2:4].mean(0) * 0.75 + states[1, 4:6].mean(0) * 0.25)
    with pytest.raises(Exception, match="needs a reasoner with thoughts"):
        TextAndThought().pool(states, mask, 0)


@pytest.mark.parametrize("length", [64, 40])
def test_the_items_own_text_is_what_the_template_does_not_say(tmp_path, length):
    model = open_encoder(encoder(tmp_path, system_prompt="Be brief.", prefix="The item: "), CPU)
    texts = corpus().texts[:6]
    rows = model.tokenize(texts, length)
    tokens = model.tokens(rows)
    read = model.prefix(tokens)
    for ids, own, text, row in zip(read.ids, model.text_mask(read.ids, read.mask).bool(), texts, rows, strict=True):
        said = model.tokenizer.decode(ids[own]).strip()
        assert text.startswith(said) if len(row) == length - 2 else said == text


def test_a_thought_that_leaves_the_template_out_does_not_depend_on_its_states(tmp_path):
    base = encoder(
        tmp_path, reasoner={"use": "latent-thought", "template": False}, pooling={**SHARED, "template": False}
    )
    model = open_encoder(base, CPU)
    prefix = model.prefix(model.tokens(model.tokenize(corpus().texts[:3])))
    own = model.text_mask(prefix.ids, prefix.mask).bool()
    # The last token asks; all others of the template are neither seen nor pooled.
    own[:, -1] = True
    noisy = prefix.states + torch.randn_like(prefix.states) * (~own).unsqueeze(-1)
    disturbed = type(prefix)(noisy, prefix.ids, prefix.mask, prefix.positions, prefix.cache)
    thoughts = model.think(prefix)
    torch.testing.assert_close(model.think(disturbed), thoughts)
    torch.testing.assert_close(model.complete(disturbed, thoughts), model.complete(prefix, thoughts))
    with pytest.raises(RecipeError, match="window"):
        build("reasoner", {"use": "latent-thought", "template": False, "window": 4})


def test_a_learned_share_trains_and_is_saved(tmp_path):
    base = encoder(tmp_path / "llm", pooling={**SHARED, "learned": True})
    assert open_encoder(base, CPU).reasoner.share.sigmoid().item() == pytest.approx(0.3)
    step = build("step", {"use": "contrast", "steps": 5, "batch_size": 10, "learning_rate": 1e-1, "loss": "info-nce"})
    trained = step.run(corpus(), base, context(tmp_path / "lrcl"))
    model = open_encoder(trained, CPU)
    assert abs(model.reasoner.share.sigmoid().item() - 0.3) > 0.01
    prefix = model.prefix(model.tokens(model.tokenize(corpus().texts[:2])))
    thoughts, vectors = model.think(prefix), model.complete(prefix, model.think(prefix))
    with torch.no_grad():
        model.reasoner.share += 1
    assert not torch.allclose(model.complete(prefix, thoughts), vectors)


def test_a_centred_cosine_does_not_see_a_common_vector_or_a_scale() -> None:
    vectors, common = torch.randn(9, 6, dtype=torch.float64), 40 * torch.randn(6, dtype=torch.float64)
    units = comparable(vectors, "centred-cosine")
    torch.testing.assert_close(comparable(3 * vectors + common, "centred-cosine"), units)
    torch.testing.assert_close(units.norm(dim=1), torch.ones(9, dtype=torch.float64))
    assert not torch.allclose(comparable(vectors + common, "cosine"), comparable(vectors, "cosine"), atol=0.1)
    torch.testing.assert_close(comparable(vectors, "inner-product"), vectors)


@pytest.mark.parametrize("loss", ["soft-target-detached", "info-nce"])
def test_losses_by_centred_cosine_do_not_see_a_common_vector_or_a_scale(loss):
    component = build("loss", {"use": loss, "similarity": "centred-cosine", "initial_temperature": 0.05})
    first, second, common = torch.randn(3, 8, 16, dtype=torch.float64)
    temperature = torch.tensor(0.05, dtype=torch.float64)
    moved = component.loss(5 * first + common[0], 5 * second + common[0], temperature)
    torch.testing.assert_close(moved, component.loss(first, second, temperature))


def test_hubs_take_the_targets_of_inner_products_and_not_those_of_centred_cosines() -> None:
    views = torch.randn(32, 64) + 20 * torch.randn(64)
    views[0] += 5 * views.mean(0) / views.mean(0).norm()

    def own_first(similarity: str, temperature: float) -> float:
        loss = build("loss", {"use": "soft-target-detached", "similarity": similarity})
        targets = loss.targets(views, views, torch.tensor(temperature))  # type: ignore[attr-defined]
        return float((targets.argmax(1) == torch.arange(32)).float().mean())

    assert own_first("inner-product", 1.0) < 0.5 < 0.99 < own_first("centred-cosine", 0.05)


def test_a_stage_says_how_far_it_moved_and_where_its_targets_point(tmp_path):
    base, facts, ticks = encoder(tmp_path / "llm"), {}, []
    table = {"use": "contrast", "steps": 4, "batch_size": 10, "learning_rate": 5e-3, "loss": "soft-target-detached"}
    build("step", table).run(corpus(), base, context(tmp_path / "lrcl", ticks, facts))
    assert facts["moved"] > 0 and 0 <= facts["final_own_first"] <= 1
    assert {"halfway_loss", "halfway_own_first"} <= facts.keys()
    assert facts["chance_loss"] == pytest.approx(math.log(10)) and facts["final_loss"] > 0
    assert all({"loss", "temperature", "own_first"} <= tick.values.keys() for tick in ticks)
    still = {}
    build("step", {**table, "learning_rate": 1e-12}).run(corpus(), base, context(tmp_path / "still", facts=still))
    assert still["moved"] < 1e-6


def test_the_temperature_moves_by_its_own_rate_and_stays_positive(tmp_path):
    base = encoder(tmp_path / "llm")
    ends = {}
    for name, more in {"log": {}, "frozen": {"temperature_learning_rate": 1e-12}}.items():
        ticks = []
        table = {"use": "contrast", "steps": 6, "batch_size": 10, "learning_rate": 1e-9, "loss": "info-nce", **more}
        build("step", table).run(corpus(), base, context(tmp_path / name, ticks))
        ends[name] = ticks[-1].values["temperature"]
    assert ends["frozen"] == pytest.approx(0.05, rel=1e-4)
    assert abs(math.log(ends["log"] / 0.05)) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["all", "thought"])
def test_neighbours_as_views_bring_neighbours_together(tmp_path, trained):
    items = corpus(24)
    # Items 2k and 2k + 1 are always bought together.
    bought = np.tile(np.arange(24, dtype=np.int32), 3)
    training = type(items.training)(bought, np.arange(0, len(bought) + 1, 2, dtype=np.int64))
    items = type(items)(**{**vars(items), "training": training, "user_keys": tuple(map(str, range(36)))})
    base = encoder(tmp_path / "llm", pooling=SHARED)
    table = {"use": "contrast", "views": "neighbours", "trained": trained, "steps": 40, "batch_size": 24}
    loss = {"use": "info-nce", "similarity": "centred-cosine", "initial_temperature": 0.2}
    step = build("step", {**table, "learning_rate": 5e-3, "loss": loss})
    after = step.run(items, base, context(tmp_path / "run"))

    def ranks(encoder):
        model = open_encoder(encoder, CPU)
        with torch.no_grad():
            units = comparable(model.embed(model.tokens(model.tokenize(items.texts))), "centred-cosine")
        scores = units @ units.T
        own = scores[torch.arange(24), torch.arange(24) ^ 1]
        return float((scores > own.unsqueeze(1)).float().sum(1).mean())

    assert ranks(after) < ranks(base) - 4
    adapters = list(after.folder.glob("adapter*"))
    assert bool(adapters) == (trained == "all")


def test_prompts_that_are_cut_on_the_left_keep_their_end(tmp_path):
    model = open_encoder(encoder(tmp_path), CPU)
    text = corpus().texts[6]
    whole = model.tokenize([text])[0]
    model.template = replace(model.template, cut="left")
    assert model.tokenize([text], 60)[0] == whole[-58:]
    prefix = model.prefix(model.tokens([whole[-58:]]))
    with pytest.raises(UserError, match="cut"):
        model.text_mask(prefix.ids, prefix.mask)


def test_a_given_width_of_padding_is_kept_though_prompts_are_read_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(ThoughtModel, "start", 0)
    model = open_encoder(encoder(tmp_path, reasoner="latent-thought-paper"), CPU)
    rows = model.tokenize([corpus().texts[0], corpus().texts[6] * 3])
    tokens = model.tokens(rows)
    wide = Tokens(*(functional.pad(part, (9, 0), value=value) for part, value in ((tokens.ids, 3), (tokens.mask, 0))))
    groups = model.prefix(wide)
    assert groups.ids.shape == wide.ids.shape
    expected = [model.think(model.prefix(Tokens(wide.ids[row : row + 1], wide.mask[row : row + 1]))) for row in (0, 1)]
    torch.testing.assert_close(model.think(groups), torch.cat(expected), atol=1e-5, rtol=1e-4)
